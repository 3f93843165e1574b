"""Caption pictures with vLLM's offline engine: the same folders, prompts and seeds, in its own order and arithmetic.

Nobody of this project has run it: vLLM needs a GPU, and its releases ask for other versions of torch, transformers and
pillow than the rest does (docs/install.md). It is written against `LLM.generate` of vLLM 0.33, and tested against a
module of that signature.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pydantic import Field

from captioning.captioner import Answer, Ask, CaptionerError, read_options
from captioning.captioners.transformers_files import TransformersConfig, folder_of, weights_of
from manifests.extras import MissingExtra
from manifests.weights import STAND_IN, WeightsError, WeightsFile

if TYPE_CHECKING:
    from PIL import Image

VERSION = 1
"""Part of the step key: bumped when the same weights would be asked otherwise."""
WINDOW = 1024
"""Pictures that the engine is given together, where the recipe names no number: it fills its own batches from them, and
waits for the longest of them at the end."""
GET = (
    "vllm is not installed here; docs/install.md says why it stands in no extra and how to have it, or serve the model"
    ' from an environment of its own (`vllm serve`) and ask it with use = "openai"'
)


class VllmConfig(TransformersConfig):
    """[caption.NAME] with use = "vllm": what `transformers` has, and how much of the machine the engine takes."""

    gpu_memory: float = Field(0.9, gt=0, le=1, description="share of the GPU's memory that the engine takes")
    gpus: int = Field(1, ge=1, description="GPUs that one engine spreads the model over")
    context: int | None = Field(
        None, ge=64, description="tokens of a question and its answer at most; none: what the model was made for"
    )


def vllm_config_of(options: Mapping[str, Any]) -> VllmConfig:
    """Read the options of an engine. Raises CaptionerError for an unknown key or a wrong value, and for the
    stand-in."""
    config = read_options(VllmConfig, options)
    if config.model == STAND_IN:
        raise CaptionerError(f'model: {STAND_IN!r} is for use = "transformers" or "stand_in"; wanted a real model')
    return config


def vllm_weights_of(config: VllmConfig) -> tuple[WeightsFile, ...]:
    """Return the identity of a model's weights. Raises WeightsError where they, or vLLM itself, are not on this
    machine."""
    if find_spec("vllm") is None:
        raise MissingExtra(GET)
    return weights_of(config)


@dataclass(frozen=True)
class _Asked:
    """A question as the engine takes it."""

    ask: Ask
    picture: "Image.Image"
    text: str


class VllmCaptioner:
    """One engine, loaded in this process."""

    def __init__(self, name: str, config: VllmConfig, batch_size: int | None, ahead: Any = None) -> None:
        """Load the engine. Raises WeightsError where vLLM is not here or cannot load the model. `ahead` is not used:
        the engine prepares pictures itself."""
        from captioning.captioners.prepare import processor_of

        (weights,) = vllm_weights_of(config)
        self.name, self.version, self.config = name, VERSION, config
        self.model, self.revision = weights.label, weights.sha256
        self.window = batch_size or WINDOW
        folder = folder_of(config)
        self._processor = processor_of(str(folder))
        self._vllm: Any = import_module("vllm")
        how: dict[str, Any] = {"max_model_len": config.context} if config.context else {}
        try:
            self._engine = self._vllm.LLM(
                model=str(folder),
                dtype=config.dtype,
                gpu_memory_utilization=config.gpu_memory,
                tensor_parallel_size=config.gpus,
                limit_mm_per_prompt={"image": 1},
                trust_remote_code=False,
                **how,
            )
        except (ValueError, RuntimeError, OSError, NotImplementedError) as error:
            raise WeightsError(f"weights of {name}: vLLM cannot load {folder}: {error}") from error

    def answers(self, asks: Iterable[Ask]) -> Iterator[Answer]:
        """Yield an answer for every question, a window of them at a time."""
        from captioning.captioners.prepare import question
        from filters.images.decode import ImageFault, ImageLimits, open_picture

        held: list[_Asked] = []
        for ask in asks:
            try:
                picture = open_picture(ask.image, ImageLimits(), stored=True)
            except ImageFault as fault:
                yield Answer(ask.uid, reason=fault.reason)
                continue
            held.append(_Asked(ask, picture.convert("RGB"), question(self._processor, ask.prompt)))
            if len(held) == self.window:
                yield from self._answered(held)
                held = []
        yield from self._answered(held)

    def _answered(self, held: list[_Asked]) -> list[Answer]:
        """Return the answers to a window. Where the engine refuses it, each question is asked alone, and one that is
        refused alone is answered with a reason; raises CaptionerError where all are."""
        try:
            return self._generated(held) if held else []
        except (ValueError, TypeError) as error:  # of one question; none of the others has been answered
            refused: Exception = error
        found, failed = list[Answer](), 0
        for one in held:
            try:
                found += self._generated([one])
            except (ValueError, TypeError) as error:
                failed, refused = failed + 1, error
                found.append(Answer(one.ask.uid, reason="captioner_failed"))
        if failed == len(held):
            raise CaptionerError(f"{self.name}: vLLM refuses every question: {refused}") from refused
        return found

    def _generated(self, held: list[_Asked]) -> list[Answer]:
        prompts = [{"prompt": one.text, "multi_modal_data": {"image": one.picture}} for one in held]
        made = self._engine.generate(prompts, [self._sampling(one.ask) for one in held], use_tqdm=False)
        return [self._answer(one.ask, found) for one, found in zip(held, made, strict=True)]

    def _sampling(self, ask: Ask) -> Any:
        """Return the likeliest words without a seed, else words drawn by the recipe's temperature and a seed of the
        picture and the seed that was asked."""
        limit = {"max_tokens": self.config.max_new_tokens}
        if not ask.seed:
            return self._vllm.SamplingParams(temperature=0.0, **limit)
        seed = (int.from_bytes(ask.uid[:8], "big") ^ ask.seed) % 2**31
        drawn = {"temperature": self.config.temperature, "top_p": self.config.top_p, "seed": seed}
        return self._vllm.SamplingParams(**drawn, **limit)

    def _answer(self, ask: Ask, found: Any) -> Answer:
        said = found.outputs[0]
        return Answer(
            ask.uid,
            said.text.strip(),
            tokens=len(said.token_ids),
            prompt_tokens=len(found.prompt_token_ids or ()),
            at_limit=said.finish_reason == "length",
        )
