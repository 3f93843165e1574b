"""Caption pictures with a vision-language model through transformers, many at a time, each as if it were alone."""

import atexit
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning.captioner import Ahead, Answer, Ask, Caption, CaptionerError
from captioning.captioners.prepare import (
    Here,
    complete_processor,
    inputs_of_picture,
    processor_of,
)
from captioning.captioners.questions import Questions
from captioning.captioners.refill import Question, Refill, can_refill, is_out_of_memory
from captioning.captioners.transformers_files import VERSION, TransformersConfig, folder_of, weights_of
from captioning.gate.alone import caption_flags
from captioning.gate.sentences import first_sentence
from captioning.prompts import fill, prompt_named
from manifests.weights import STAND_IN, WeightsError

if TYPE_CHECKING:
    import torch
    from PIL import Image
ON_CPU, ON_GPU = 8, 64
"""Slots where the recipe names none: on a CPU; on a GPU at most, as far as its memory holds them."""
CANARY_TOKENS = 4
CLOSE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.05}
"""How far logits of the slots may be from those of the model alone, in shares of their spread, at the start."""


class TransformersCaptioner:
    """One model with its processor, loaded in this process."""

    def __init__(
        self, name: str, config: TransformersConfig, batch_size: int | None, ahead: Ahead | None = None
    ) -> None:
        """Load the model, or take it from this process's last load. Raises WeightsError, CaptionerError."""
        (weights,) = weights_of(config)
        self.name, self.version = name, VERSION
        self.model, self.revision = weights.label, weights.sha256
        self.config, self.ahead = config, ahead or Here()
        folder = STAND_IN if config.model == STAND_IN else str(folder_of(config))
        self._vlm, self.folder = _load(folder, weights.sha256, config.dtype)
        self.processor = processor_of(self.folder)
        self.notes: list[str] = []
        """What the user is told of: fall-backs."""
        self.found = batch_size is None
        """Whether the number of slots was found here, and not named by the recipe."""
        self.slots = batch_size or _slots_that_fit(self._vlm, config.max_new_tokens)
        self.device = _device_name(self._vlm)
        self._refills = can_refill(self._vlm)
        self._check()

    def answers(self, asks: Iterable[Ask]) -> Iterator[Answer]:
        """Yield an answer for every question as they end; each picture is read alone, so that none changes another's
        words."""
        run = Questions(self, iter(asks))
        refill = self._refill(run)
        for question, tokens, at_limit in self._decoded(refill, run):
            yield run.answer(question, tokens, at_limit)
            yield from run.failed()
        yield from run.failed()
        self.counts = refill.counts
        if refill.counts.halved:
            self.slots = refill.slots
            print(f"{self.name}: memory holds {self.slots} pictures at a time, not more", file=sys.stderr)

    def caption(self, images: "list[Image.Image]") -> list[Caption]:
        """Return one caption per RGB picture, in order."""
        prompt = fill(prompt_named(self.config.prompt), None, None)
        asks = [Ask(number.to_bytes(16, "big"), b"", prompt) for number in range(len(images))]
        run = Questions(self, iter(asks), pictures={ask.uid: image for ask, image in zip(asks, images, strict=True)})
        found = {
            question.key.uid: run.answer(question, tokens, at_limit)
            for question, tokens, at_limit in self._decoded(self._refill(run), run)
        }
        failed = list(run.failed())
        if failed:
            raise CaptionerError(f"{self.name}: {len(failed)} pictures were not described: {run.last_error}")
        return [
            Caption(one.text, first_sentence(one.text), caption_flags(one.text, at_limit=one.at_limit))
            for one in (found[ask.uid] for ask in asks)
        ]

    def _refill(self, run: Questions) -> Refill:
        forward = None
        if self.config.compile:
            import torch

            forward = torch.compile(self._vlm, dynamic=False)
        return Refill(self._vlm, self.slots, self.ends, run.choose, forward, run.failed_to_read)

    def _decoded(self, refill: Refill, run: Questions) -> Iterator[tuple[Question, list[int], bool]]:
        return refill.answers(iter(run)) if self._refills else self._one_by_one(run)

    def _one_by_one(self, run: Questions) -> Iterator[tuple[Question, list[int], bool]]:
        """Answer by the model's own `generate`, where its layers do not only attend to all before."""
        import torch

        for question in run:
            try:
                with torch.inference_mode():
                    out = self._vlm.generate(**question.inputs, generation_config=self._generation(question.limit))
            except Exception as error:
                if is_out_of_memory(error):
                    raise CaptionerError(f"{self.name}: memory does not hold one question ({error})") from error
                run.failed_to_read(question, error)
                continue
            tokens = out[0, question.tokens :].tolist()
            end = next((place for place, token in enumerate(tokens) if token in self.ends), len(tokens))
            yield question, tokens[:end], end == len(tokens)

    @property
    def ends(self) -> frozenset[int]:
        """Return the tokens that end an answer."""
        text = self._vlm.config.get_text_config(decoder=True)
        for found in (
            self._vlm.generation_config.eos_token_id,
            text.eos_token_id,
            self.processor.tokenizer.eos_token_id,
        ):
            if found is not None:
                return frozenset(found if isinstance(found, list) else [found])
        return frozenset()

    def _generation(self, limit: int) -> Any:
        """Return greedy decoding, whatever the model's own generation file asks for."""
        from transformers import GenerationConfig

        tokenizer = self.processor.tokenizer
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=limit,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=sorted(self.ends) or None,
            pad_token_id=min(self.ends, default=0) if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        )

    def to_device(self, inputs: Any) -> "dict[str, torch.Tensor]":
        """Return arrays as tensors where the model is, numbers with a fraction in its type."""
        import torch

        moved = {name: torch.from_numpy(value).to(self._vlm.device) for name, value in inputs.items()}
        return {name: one.to(self._vlm.dtype) if one.is_floating_point() else one for name, one in moved.items()}

    def _check(self) -> None:
        """Answer to a picture of our own by the slots and by the model's own `generate`, before any work.

        Raises CaptionerError where the model cannot be used; where the slots give other numbers, `generate` is used for
        all, and that is noted.
        """
        import torch
        from PIL import Image

        prompt, picture = fill(prompt_named("describe_v1"), None, None), Image.new("RGB", (64, 48), (180, 40, 90))
        seen: list[Any] = []
        try:
            inputs = self.to_device(inputs_of_picture(self.processor, picture, prompt))
            config = self._generation(CANARY_TOKENS)
            config.output_logits = config.return_dict_in_generate = True
            config.eos_token_id = None
            with torch.inference_mode():
                plain = self._vlm.generate(**inputs, generation_config=config)
            if self._refills:
                tokens = plain.sequences[0, inputs["input_ids"].shape[1] :].tolist()
                self._walk(inputs, tokens, seen)
                self._refills = self._close(plain.logits, seen)
        except Exception as error:
            if is_out_of_memory(error):
                said = f"{self.name}: {self.model} does not fit into the device's memory: {error}"
                raise CaptionerError(said) from error
            raise CaptionerError(
                f"{self.name}: {self.model} ({type(self._vlm).__name__}) cannot describe a picture:"
                f" {type(error).__name__}: {error}"
            ) from error
        if not self._refills:
            self.notes.append(
                f"{self.name}: {type(self._vlm).__name__} answers one picture at a time, by its own generate: slots"
                " that are refilled need layers that attend to all tokens before, or gave other numbers than it"
            )
            print(self.notes[-1], file=sys.stderr)

    def _walk(self, inputs: Any, tokens: list[int], seen: list[Any]) -> None:
        """Let the slots go the way that `generate` went, and note the logits that they see on it."""

        def forced(key: Any, logits_V: Any, place: int) -> int:
            if key == 0:
                del seen[place:]  # where memory was full it goes the way again
                seen.append(logits_V)
            return tokens[place]

        slots = Refill(self._vlm, 2, frozenset(), forced)
        list(slots.answers(iter([Question(0, inputs, len(tokens)), Question(1, inputs, len(tokens))])))

    def _close(self, plain: Any, seen: list[Any]) -> bool:
        allowed = CLOSE.get(str(self._vlm.dtype).removeprefix("torch."), 0.1)
        return all(
            float((one[0].float() - other).abs().max()) <= allowed * float(one[0].float().std() + 1e-6)
            for one, other in zip(plain, seen, strict=True)
        )


def _device_name(vlm: Any) -> str:
    import torch

    return torch.cuda.get_device_name(vlm.device) if vlm.device.type == "cuda" else str(vlm.device)


def _slots_that_fit(vlm: Any, limit: int) -> int:
    """Return how many answers the device's memory holds: of what is free once the model is there, a half for keys and
    values."""
    import torch

    if vlm.device.type != "cuda":
        return ON_CPU
    text = vlm.config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    tokens = 3000 + limit  # of a question with a large picture, and of its answer
    slot = 2 * text.num_hidden_layers * heads * width * vlm.dtype.itemsize * tokens
    free, _ = torch.cuda.mem_get_info()
    slots = max(1, min(ON_GPU, int(free * 0.5 // slot)))
    print(f"captions: {slots} at a time fit into {free / 1e9:.1f} GB that are free", file=sys.stderr)
    return slots


@lru_cache(maxsize=1)
def _load(folder: str, sha256: str, dtype: str) -> tuple[Any, str]:
    """Load a model once per process, and return it with the folder of its processor; `sha256` is here so that a changed
    folder is loaded again."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would draw over the run's own progress lines
    if folder != STAND_IN:
        return _load_folder(Path(folder), dtype), folder
    from captioning.stand_in import write_stand_in

    scratch = tempfile.mkdtemp(prefix="tessera-vlm-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)  # processes that prepare pictures read it till then
    return _load_folder(write_stand_in(Path(scratch)), dtype), scratch


def _load_folder(folder: Path, dtype: str) -> Any:
    """Load a model folder onto the GPU where there is one. Raises WeightsError for a folder of another architecture or
    shape."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    on_gpu = torch.cuda.is_available()
    number = getattr(torch, dtype if dtype != "auto" else "bfloat16" if on_gpu else "float32")
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(folder, dtype=number, **how)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise WeightsError(f"weights of a captioner: {folder} cannot be loaded: {error}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:5])
        raise WeightsError(f"weights of a captioner: {folder} lacks parameters: {missing} …")
    complete_processor(processor_of(str(folder)), model)
    return model.to("cuda" if on_gpu else "cpu").eval()
