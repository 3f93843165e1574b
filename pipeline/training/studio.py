"""Load what turns prompts into pictures: a GPT from any checkpoint, what conditions it, and its tokenizer.

What cannot work is refused here, before anything is drawn, with what was got and what is wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manifests.files import FormatError, read_json
from manifests.weights import STAND_IN, WeightsError
from pipeline.gpt import GPT, Condition, rope_tables
from pipeline.sampling.options import Settings, Source
from pipeline.sampling.pick import Sampling
from pipeline.sampling.prompts import PromptError, read_classes
from pipeline.training.conditions import ClassCondition, Conditioner, TextCondition
from pipeline.training.text_features import HashedWords, T5Text
from pipeline.training.weights import STATE, GPTFacts, GPTWeights, read_gpt_weights
from tokenize_shards.catalog import DEMO, VQ_SPECS, vq_spec
from tokenize_shards.images import to_uint8
from tokenize_shards.samples import UNKNOWN
from tokenize_shards.tensors import fingerprint
from tokenize_shards.vq import LoadedVQ, load_vq

LLAMAGEN_TEXT = Sampling(7.5, top_k=1000)
LLAMAGEN_CLASS = Sampling(4.0, top_k=2000)
"""How LlamaGen's own scripts draw (autoregressive/sample/sample_t2i.py, sample_c2i.py)."""
T5 = "google/flan-t5-xl"
AT_ONCE = 8
"""Pictures that the tokenizer decodes together: at 512 px each takes some 0.3 GB."""


@dataclass(frozen=True)
class Studio:
    """A GPT, what conditions it and its tokenizer, all on one device."""

    gpt: GPT
    condition: Conditioner
    vq: LoadedVQ
    sampling: Sampling  # what the options leave open: the training's, else LlamaGen's
    weights: str  # which file, and which weights in it
    identity: Mapping[str, Any]  # what pictures depend on, for a record beside them

    @property
    def n_tokens(self) -> int:
        """Return the codes of a picture."""
        return self.gpt.spec.grid**2

    @property
    def size(self) -> int:
        """Return the side of a picture in pixels."""
        return self.gpt.spec.grid * self.vq.vq.spec.downsampling

    @property
    def says(self) -> str:
        """Return what draws, in one line; stand-ins are named."""
        return f"{self.weights}; {self.condition.says}; tokenizer {self.vq.weights.label}; {self.size} px"

    def prompts(self, words: Sequence[str]) -> list[str]:
        """Return what to draw: prompts as they are, classes checked and spelled out. Raises PromptError."""
        if not words:
            wanted = "prompts" if self.gpt.spec.condition == "text" else "classes, such as 207 or 0-9"
            raise PromptError(f"nothing to draw: wanted {wanted}, or --prompts FILE")
        return read_classes(words, self.gpt.spec.classes) if self.gpt.spec.condition == "class" else list(words)

    def of(self, prompts: Sequence[str]) -> Condition:
        """Return the condition of prompts, or of class numbers as texts."""
        return self.condition.of(prompts)

    @torch.no_grad()
    def pixels(self, codes_BN: Tensor) -> npt.NDArray[np.uint8]:
        """Return pictures (B, H, W, 3) of codes, drawn whole or not yet: (B, N) with N the codes of a picture."""
        device = next(self.vq.vq.parameters()).device
        parts = torch.split(codes_BN.to(device), AT_ONCE)
        return np.concatenate([to_uint8(self.vq.vq.decode(part)) for part in parts])


def open_studio(source: Source, settings: Settings) -> Studio:
    """Load everything. Raises WeightsError, or ValueError for settings out of range or a device that there is not."""
    device = _device(source)
    bf16 = source.precision == "bf16" or (source.precision == "auto" and device.type == "cuda")
    weights = read_gpt_weights(source.checkpoint, ema=source.ema)
    loaded = _tokenizer(weights.facts, source)
    spec = weights.facts.spec(_grid(weights.facts, source, loaded))
    condition = _condition(weights.facts, source, device)
    sampling = _sampling(weights, settings)
    gpt = _placed(weights, spec, device, torch.bfloat16 if bf16 else torch.float32)
    loaded.vq.to(device)
    identity = {
        "weights": fingerprint(weights.tensors),
        "tokenizer": {"name": loaded.weights.name, "fingerprint": loaded.fingerprint, **_marked(loaded)},
        "text": condition.label,
        "grid": spec.grid,
        "drawn_on": f"{device.type} {'bf16' if bf16 else 'fp32'}, torch {torch.__version__}",
    }
    return Studio(gpt, condition, loaded, sampling, weights.says, identity)


def _marked(loaded: LoadedVQ) -> dict[str, bool]:
    return {"stand_in": True} if loaded.weights.stand_in else {}


def _device(source: Source) -> torch.device:
    there = torch.cuda.is_available()
    if source.device == "cuda" and not there:
        raise ValueError("--device cuda: torch finds no GPU here; choices: cpu, auto")
    return torch.device("cuda" if there and source.device != "cpu" else "cpu")


def _placed(weights: GPTWeights, spec: Any, device: torch.device, dtype: torch.dtype) -> GPT:
    """Return the model with these weights; its rotary tables stay in float32, in which they are used."""
    with torch.device("meta"):
        gpt = GPT(spec)
    gpt.load_state_dict({name: tensor.to(dtype) for name, tensor in weights.tensors.items()}, strict=True, assign=True)
    gpt.rope_cos_PR, gpt.rope_sin_PR = rope_tables(spec)
    return gpt.requires_grad_(False).eval().to(device)


def _tokenizer(facts: GPTFacts, source: Source) -> LoadedVQ:
    """Return the tokenizer that the codes are of. Raises WeightsError where it is another, or its weights are
    missing."""
    made = facts.tokenizer or {}
    fits = [name for name, spec in VQ_SPECS.items() if spec.codebook_size == facts.vocab]
    name = source.vq or made.get("name") or next(iter(fits), "VQ-16")
    spec = vq_spec(name)
    if spec.codebook_size != facts.vocab:
        raise WeightsError(
            f"--vq {name} has {spec.codebook_size:,} codes, these weights draw {facts.vocab:,}; choices:"
            f" {', '.join(fits) or 'none of the tokenizers known here'}"
        )
    own = STAND_IN if made.get("stand_in") else DEMO if name == "VQ-demo" else None
    weights = source.vq_weights or own
    if weights is None or (weights not in (STAND_IN, DEMO) and not Path(weights).expanduser().is_file()):
        raise WeightsError(
            f"weights of {name}: {'none given' if weights is None else f'no file at {weights!r}'}. Get {spec.get}, and"
            f" give its path as --vq-weights; or --vq-weights {STAND_IN}: seeded random weights, whose pictures are"
            " noise"
        )
    loaded = load_vq(name, weights)
    wanted = made.get("fingerprint", UNKNOWN)
    if wanted not in (UNKNOWN, loaded.fingerprint):
        raise WeightsError(
            f"{loaded.weights.label} ({weights}) has fingerprint {loaded.fingerprint[:12]}…, but the codes of the"
            f" training were made by {made.get('name')} {wanted[:12]}…: give its weights as --vq-weights"
        )
    return loaded


def _grid(facts: GPTFacts, source: Source, loaded: LoadedVQ) -> int:
    """Return image tokens per side. Raises WeightsError where neither the file nor --size says it."""
    side = loaded.vq.spec.downsampling
    if source.size is None and facts.grid is None:
        raise WeightsError(
            f"these weights do not say their picture's size: give --size, such as 256 ({256 // side} x"
            f" {256 // side} codes of {loaded.weights.name}) for a stage-1 file, or 512 for stage 2"
        )
    if source.size is not None and source.size % side:
        raise WeightsError(f"--size {source.size}: wanted a multiple of {side}, the pixels of a code of its tokenizer")
    return source.size // side if source.size else int(facts.grid or 0)


def _condition(facts: GPTFacts, source: Source, device: torch.device) -> Conditioner:
    """Return what turns prompts into the model's condition. Raises WeightsError for text features that are not the
    training's."""
    if facts.condition == "class":
        if source.text_weights:
            raise WeightsError(f"--text-weights: these weights draw {facts.classes:,} classes and read no text")
        return ClassCondition(facts.classes)
    if facts.text == HashedWords.label:
        if source.text_weights:
            raise WeightsError("--text-weights: these weights were trained with hashed words, which need none")
        return TextCondition(HashedWords(facts.cond_dim), facts.cond_len, facts.cond_dim)
    text = T5Text(source.text_weights or T5, facts.cond_dim, str(device))
    if facts.text and facts.text.split()[-1] != text.label.split()[-1]:
        raise WeightsError(
            f"--text-weights: {text.label} is not the encoder that these weights were trained with, {facts.text}"
        )
    return TextCondition(text, facts.cond_len, facts.cond_dim)


def _sampling(weights: GPTWeights, settings: Settings) -> Sampling:
    """Return the options, and for what they leave open the training's own, else LlamaGen's."""
    base = LLAMAGEN_CLASS if weights.facts.condition == "class" else LLAMAGEN_TEXT
    train = _trained(weights.path.with_name(STATE))
    values = {
        name: train.get(f"sample_{name}", getattr(base, name)) if given is None else given
        for name in ("cfg_scale", "top_k", "temperature", "top_p")
        for given in (getattr(settings, name),)
    }
    return Sampling(**values, seed=settings.seed, cfg_interval=settings.cfg_interval or (0, None))


def _trained(state: Path) -> dict[str, Any]:
    """Return the [train] of the state.json beside a checkpoint; nothing where there is none."""
    try:
        found = read_json(state).get("train") if state.is_file() else None
    except FormatError:
        return {}
    return found if isinstance(found, dict) else {}
