"""Read the weights of a GPT from any file that a trainer of LlamaGen's kind leaves, and say what model they are.

Taken are this trainer's checkpoints, and LlamaGen's `.pt`, `consolidated.pth` and safetensors in any precision; names
lose what wrappers put into them, and what only a sampler keeps is left out. Layers, width, codebook and condition
follow from the shapes; grid, rotary embedding of the condition, tokenizer and text encoder stand in the header of our
own files, and LlamaGen's are known.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import safe_open
from torch import Tensor

from manifests.files import FormatError, parsing, read_json, writing
from manifests.roots import place_of
from manifests.store import local_copy
from manifests.weights import WeightsError
from pipeline.gpt import GPT
from pipeline.gpt_spec import SIZES, ConditionKind, GPTSpec, RopeCondition
from tokenize_shards.tensors import fit, read_held

MODEL, EMA, STATE, LATEST = "model.safetensors", "ema.safetensors", "state.json", "latest"
HEADER = "tessera"
"""The one key in the header of our safetensors files: several would stand there in no fixed order."""
HELD = ("model", "module", "state_dict", "", "ema")
"""Where weights stand in a checkpoint, best first; "" is the file itself. The running average only if nothing else is
there."""
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "model"})
"""Parts of names that DDP, torch.compile, FSDP, activation checkpointing and Lightning put in, anywhere."""
STRAY = re.compile(r"freqs_cis|causal_mask|.*\.kv_cache\.[kv]_cache|rope_(cos|sin)_PR")
"""Tensors that a sampler or an older tool saves, and that are computed anyway."""
UNCONDITIONAL, LABELS = "cls_embedding.uncond_embedding", "cls_embedding.embedding_table.weight"


@dataclass(frozen=True)
class GPTFacts:
    """What shapes a GPT, and what it was trained with; None is unknown."""

    model: str
    condition: ConditionKind
    vocab: int
    cond_len: int = GPTSpec.cond_len
    cond_dim: int = GPTSpec.cond_dim
    classes: int = GPTSpec.classes
    grid: int | None = None
    rope_cond: RopeCondition = "zero"  # LlamaGen's, and that of files that do not say
    tokenizer: Mapping[str, Any] | None = None  # as samples' notes have it: name, fingerprint, codebook, stand_in
    text: str | None = None  # label of what made the text features
    step: int | None = None  # finished steps of training

    @property
    def says(self) -> str:
        """Return the model in words."""
        kind = f"text {self.cond_len} x {self.cond_dim}" if self.condition == "text" else f"{self.classes:,} classes"
        grid = f", grid {self.grid}" if self.grid else ""
        return f"{self.model}, {kind}, {self.vocab:,} codes{grid}, rope_cond {self.rope_cond!r}"

    def header(self, is_average: bool = False) -> dict[str, str]:
        """Return the metadata of a safetensors file of these weights, or of their running average."""
        said = {"version": 1, "holder": "ema" if is_average else "model", **asdict(self)}
        return {HEADER: json.dumps(said, sort_keys=True, allow_nan=False)}

    def spec(self, grid: int | None = None, rope_cond: RopeCondition | None = None) -> GPTSpec:
        """Return the spec to build. grid: image tokens per side where the file does not say, or another. Raises
        WeightsError."""
        side = grid or self.grid
        if side is None:
            raise WeightsError(
                "these weights do not say their grid: wanted image tokens per side, such as 16 for 256 px with VQ-16"
            )
        return GPTSpec(
            *SIZES[self.model],
            condition=self.condition,
            grid=side,
            rope_cond=rope_cond or self.rope_cond,
            vocab=self.vocab,
            cond_len=self.cond_len,
            cond_dim=self.cond_dim,
            classes=self.classes,
        )


@dataclass(frozen=True)
class Weights:
    """Tensors of one file by plain names, in the file's dtype, and where in it they stood."""

    path: Path
    holder: str  # "model", "ema", …; "" where the file is flat
    tensors: dict[str, Tensor]
    header: dict[str, Any]  # of our own safetensors files; else empty
    extent: int | None = None  # positions that a rotary table or mask left out of `tensors` had

    @property
    def says(self) -> str:
        """Return which file, and which weights in it."""
        return f"{self.path} ({self.holder!r} in it)" if self.holder else str(self.path)


@dataclass(frozen=True)
class GPTWeights:
    """Weights of a GPT, float32 by LlamaGen's names, and what model they are."""

    path: Path
    says: str  # one line: the file, which weights in it, the model
    tensors: dict[str, Tensor]
    facts: GPTFacts


def read_gpt_weights(source: str | Path, ema: bool = False) -> GPTWeights:
    """Return a GPT's weights from a checkpoint folder, a folder of checkpoints or a file, here or in a store.

    ema: the running average instead of the weights themselves. Raises WeightsError for a missing, damaged or unsafe
    file, for one that is no GPT, of no known size, or that holds NaN or infinite numbers.
    """
    weights = read_weights(source, ema=ema)
    facts = facts_of(weights)
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in GPT(facts.spec(facts.grid or 1)).state_dict().items()}
    return GPTWeights(weights.path, f"{weights.says}: {facts.says}", fit(weights.tensors, shapes, weights.says), facts)


def export_llamagen_pt(source: str | Path, target: Path, ema: bool = False) -> GPTWeights:
    """Write weights as LlamaGen's own code loads them, a torch file {"model": tensors}; return what was written.

    source, ema: as `read_gpt_weights` takes them, and what it raises. `target` is a local file.
    """
    weights = read_gpt_weights(source, ema=ema)
    with writing(target) as temporary:
        torch.save({"model": weights.tensors}, temporary)
    return weights


def read_weights(source: str | Path, ema: bool = False) -> Weights:
    """Return the tensors of a checkpoint folder, a folder of checkpoints or a file, whatever model they are of.

    A checkpoint's "model" comes before its "ema", which is taken only if `ema` asks for it, or nothing else is there.
    Raises WeightsError for a missing, damaged or unsafe file, and where `ema` is asked for and there is none.
    """
    path = find_weights(source, ema=ema)
    apart = ema and path.name == EMA
    with local_copy(path) as local:
        try:
            holder, named = read_held(local, HELD if apart or not ema else ("ema", *HELD))
            header = _header(local)
        except WeightsError as error:
            raise WeightsError(str(error).replace(str(local), str(path))) from error
    if ema and not apart and holder != "ema" and header.get("holder") != "ema":
        raise WeightsError(f"{path} holds no running average ('ema'); wanted a checkpoint with one, or no ema")
    tensors = _plain(named, path)
    extent = next((_extent(name, tensor) for name, tensor in tensors.items() if _extent(name, tensor)), None)
    kept = {name: tensor for name, tensor in tensors.items() if not STRAY.fullmatch(name)}
    return Weights(path, holder, kept, header or _noted(path), extent)


def find_weights(source: str | Path, ema: bool = False) -> Path:
    """Return the file that a source names: `ema.safetensors` of a checkpoint if `ema`, else its `model.safetensors`,
    or the file itself. Raises WeightsError where there is none."""
    path = place_of(str(source)).expanduser()
    if path.is_dir():
        pointer = path / LATEST
        path = path / (pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ".") / MODEL
        path = path.with_name(EMA) if ema else path
    if not path.is_file():
        raise WeightsError(
            f"no weights at {str(source)!r}{f' ({EMA})' if ema and path.name == EMA else ''}; wanted a checkpoint"
            " folder, a folder of checkpoints (train/TIER/checkpoints), a .safetensors file, or a .pt such as"
            " t2i_XL_stage1_256.pt (huggingface.co/peizesun/llamagen_t2i)"
        )
    return path


def facts_of(weights: Weights) -> GPTFacts:
    """Return what GPT these weights are of, from their shapes and the file's header. Raises WeightsError for no GPT."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    vocab, dim = _table(shapes, "tok_embeddings.weight", weights)
    layers = 1 + max((int(name.split(".")[1]) for name in shapes if re.match(r"layers\.\d+\.", name)), default=-1)
    named = [name for name, (count, _, width) in SIZES.items() if (count, width) == (layers, dim)]
    if not named:
        sizes = ", ".join(f"{name} {count} x {width}" for name, (count, _, width) in SIZES.items())
        raise WeightsError(f"{weights.says}: {layers} layers of width {dim}, wanted one of {sizes}")
    header = weights.header
    told = {name: header[name] for name in ("grid", "rope_cond", "tokenizer", "text", "step") if name in header}
    model = header["model"] if header.get("model") in named else named[0]
    if UNCONDITIONAL in shapes:
        cond_len, cond_dim = _table(shapes, UNCONDITIONAL, weights)
        facts = GPTFacts(model, "text", vocab, cond_len=cond_len, cond_dim=cond_dim, **told)
    else:
        facts = GPTFacts(model, "class", vocab, classes=_table(shapes, LABELS, weights)[0] - 1, **told)
    codes = (weights.extent or 0) - facts.spec(1).prefix
    if facts.grid is None and codes > 0:
        facts = replace(facts, grid=math.isqrt(codes))
    return facts


def _table(shapes: Mapping[str, tuple[int, ...]], name: str, weights: Weights) -> tuple[int, int]:
    """Return rows and columns of a table that every GPT of the kind has. Raises WeightsError."""
    shape = shapes.get(name, ())
    if len(shape) != 2:
        few = ", ".join(sorted(shapes)[:3])
        raise WeightsError(f"{weights.says} is no GPT of LlamaGen's kind: no table {name!r} in it; got {few}, …")
    return shape[0], shape[1]


def _plain(named: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return tensors by names without wrappers. Raises WeightsError where two become one."""
    plain = {
        ".".join(part for part in name.split(".") if part not in WRAPPERS): tensor for name, tensor in named.items()
    }
    if len(plain) < len(named):
        raise WeightsError(f"{path}: {len(named)} tensors, of which only {len(plain)} have names of their own")
    return plain


def _extent(name: str, tensor: Tensor) -> int | None:
    """Return how many positions a rotary table (P, R, 2) or a mask (…, P, P) of a sampler has."""
    if name == "freqs_cis":
        return len(tensor)
    return tensor.shape[-1] if name == "causal_mask" else None


def _header(path: Path) -> dict[str, Any]:
    """Return what the header of one of our safetensors files says; nothing of any other file."""
    with open(path, "rb") as file:
        if file.read(9)[8:] != b"{":
            return {}
    with safe_open(path, framework="pt") as opened:
        said = (opened.metadata() or {}).get(HEADER, "{}")
    with parsing(path, "its header is not one of this trainer's", WeightsError):
        header = dict(json.loads(said))
        if header and (header["rope_cond"] not in get_args(RopeCondition) or int(header["grid"] or 1) < 1):
            raise ValueError(f"rope_cond {header['rope_cond']!r}, grid {header['grid']!r}")
        return header


def _noted(path: Path) -> dict[str, Any]:
    """Return what the state.json beside a checkpoint says that was written before headers were; else nothing."""
    note = path.with_name(STATE)
    if path.name != MODEL or not note.is_file():
        return {}
    try:
        with parsing(note, "not the state of a checkpoint"):
            state = read_json(note)
            train, made = state["train"], state["tokenizer"]
            known = {"model": train["model"], "rope_cond": train["rope_cond"], "grid": made["grid"]}
            return {**known, "tokenizer": made, "text": state["text"], "step": state["step"]}
    except FormatError:
        return {}  # another tool's file of that name
