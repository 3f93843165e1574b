"""Caption pictures with LLaVA through transformers: padded batches, greedy, the same words each time."""

# Shapes: B pictures in a batch, T tokens, C H W of a picture.
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning.captioner import Answer, Ask, Caption
from captioning.llava_files import VERSION, LlavaConfig, llava_folder, llava_weights
from captioning.prompts import fill, prompt_named
from captioning.quality import caption_flags, first_sentence
from filters.images.decode import ImageFault, ImageLimits, open_picture
from filters.images.scaled import middle_of_short_side
from manifests.weights import STAND_IN, WeightsError

if TYPE_CHECKING:
    from PIL import Image
    from transformers import LlavaForConditionalGeneration, LlavaProcessor


class Llava:
    """LLaVA 1.5, or whatever of its architecture lies in the folder."""

    def __init__(self, name: str, config: LlavaConfig, batch_size: int) -> None:
        """Load the model, or take it from this process's last load. Raises WeightsError."""
        (weights,) = llava_weights(config)
        self.name, self.version = name, VERSION
        self.model, self.revision = weights.label, weights.sha256
        self.batch_size, self.max_new_tokens = batch_size, config.max_new_tokens
        self._llava, self._processor = _load(
            STAND_IN if config.model == STAND_IN else str(llava_folder(config)), weights.sha256, config.dtype
        )
        self._prompt = config.prompt

    def answers(self, asks: Iterable[Ask]) -> Iterator[Answer]:
        """Yield the answers, a batch at a time."""
        some: list[tuple[Ask, Image.Image]] = []
        for ask in asks:
            try:
                picture = open_picture(ask.image, ImageLimits(), stored=True)
            except ImageFault as fault:
                yield Answer(ask.uid, reason=fault.reason)
                continue
            some.append((ask, picture))
            if len(some) == self.batch_size:
                yield from self._batch([ask for ask, _ in some], [image for _, image in some])
                some = []
        if some:
            yield from self._batch([ask for ask, _ in some], [image for _, image in some])

    def caption(self, images: "list[Image.Image]") -> list[Caption]:
        """Return one caption per RGB picture, in order."""
        prompt = prompt_named(self._prompt)
        captions: list[Caption] = []
        for start in range(0, len(images), self.batch_size):
            some = images[start : start + self.batch_size]
            asks = [Ask(number.to_bytes(16, "big"), b"", fill(prompt, None, None)) for number in range(len(some))]
            captions += [
                Caption(one.text, first_sentence(one.text), caption_flags(one.text, at_limit=one.at_limit))
                for one in self._batch(asks, some)
            ]
        return captions

    def _batch(self, asks: Sequence[Ask], images: "Sequence[Image.Image]") -> list[Answer]:
        """Answer up to `batch_size` pictures; the last one is repeated to fill the batch, so that each multiplication
        has one shape."""
        import torch

        padded = [self._bounded(image.convert("RGB")) for image in images]
        padded += padded[-1:] * (self.batch_size - len(images))
        questions = [_question(self._processor, ask.prompt) for ask in asks]
        questions += questions[-1:] * (self.batch_size - len(images))
        inputs = self._processor(images=padded, text=questions, padding=True, return_tensors="pt")
        inputs = inputs.to(self._llava.device, dtype=self._llava.dtype)
        with torch.inference_mode():
            out_BT = self._llava.generate(**inputs, generation_config=self._generation())
        answers_BT = out_BT[: len(images), inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(answers_BT, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [
            self._finish(ask.uid, text.strip(), answer_T.tolist())
            for ask, text, answer_T in zip(asks, texts, answers_BT, strict=True)
        ]

    def _bounded(self, image: "Image.Image") -> "Image.Image":
        """Return a picture that the processor can scale: its middle where the whole would grow monstrous."""
        from PIL.Image import Resampling

        look = self._processor.image_processor
        short = (look.size or {}).get("shortest_edge")
        if not short or not look.do_center_crop:
            return image
        crop = min(look.crop_size["height"], look.crop_size["width"])
        return middle_of_short_side(image, short, crop, Resampling(look.resample))

    def _finish(self, uid: bytes, text: str, answer_T: list[int]) -> Answer:
        end = next((place for place, token in enumerate(answer_T) if token in self._ends), len(answer_T))
        return Answer(uid, text, tokens=min(end + 1, len(answer_T)), at_limit=end == self.max_new_tokens)

    @property
    def _ends(self) -> frozenset[int]:
        """Return the tokens that end a caption."""
        ends = self._llava.generation_config.eos_token_id
        if ends is None:
            ends = self._llava.config.text_config.eos_token_id or self._processor.tokenizer.eos_token_id
        return frozenset(ends if isinstance(ends, list) else [ends])

    def _generation(self) -> Any:
        """Return greedy decoding, whatever the model's own generation file asks for."""
        from transformers import GenerationConfig

        pad = self._processor.tokenizer.pad_token_id
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.max_new_tokens,
            bos_token_id=self._processor.tokenizer.bos_token_id,
            eos_token_id=sorted(self._ends),
            pad_token_id=min(self._ends) if pad is None else pad,
        )


@lru_cache(maxsize=1)
def _load(folder: str, sha256: str, dtype: str) -> "tuple[LlavaForConditionalGeneration, LlavaProcessor]":
    """Load model and processor once per process; `sha256` is here so that a changed folder is loaded again."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would draw over the run's own progress lines
    if folder != STAND_IN:
        return _load_folder(Path(folder), dtype)
    from captioning.stand_in import write_stand_in

    with tempfile.TemporaryDirectory(prefix="tessera-llava-") as scratch:
        return _load_folder(write_stand_in(Path(scratch)), dtype)


def _load_folder(folder: Path, dtype: str) -> "tuple[LlavaForConditionalGeneration, LlavaProcessor]":
    """Load a model folder onto the GPU where there is one. Raises WeightsError for a folder of another architecture or
    shape."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    on_gpu = torch.cuda.is_available()
    number = getattr(torch, dtype if dtype != "auto" else "bfloat16" if on_gpu else "float32")
    try:
        processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model, report = LlavaForConditionalGeneration.from_pretrained(folder, dtype=number, **how)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise WeightsError(f"weights of llava: {folder} cannot be loaded as a LLaVA model: {error}") from error
    if report["missing_keys"]:
        raise WeightsError(
            f"weights of llava: {folder} lacks parameters: {', '.join(sorted(report['missing_keys'])[:5])} …"
        )
    _prepare(processor, model)
    return model.to("cuda" if on_gpu else "cpu").eval(), processor


def _prepare(processor: Any, model: Any) -> None:
    """Pad on the left (answers then start in one column), and give older folders the sizes that their processor
    lacks."""
    processor.tokenizer.padding_side = "left"
    if processor.patch_size is None:
        processor.patch_size = model.config.vision_config.patch_size
        processor.vision_feature_select_strategy = model.config.vision_feature_select_strategy
        processor.num_additional_image_tokens = 1


def _question(processor: Any, prompt: str) -> str:
    """Return the model's own chat form of one picture and the prompt."""
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
    question: str = processor.apply_chat_template([turn], add_generation_prompt=True)
    return question
