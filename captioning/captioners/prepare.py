"""Turn an encoded picture and a prompt into what a model takes, in a process beside it or in its own."""

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning.prompts import JOINERS
from filters.images.decode import ImageFault, ImageLimits, open_picture
from filters.images.scaled import middle_of_short_side
from manifests.weights import WeightsError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
KEPT = f"\n{JOINERS}"
"""Characters of a prompt that cannot be printed and mean something."""
Item = tuple[bytes, str]
"""An encoded picture, and the filled prompt."""
Inputs = "dict[str, np.ndarray] | str"
"""What the model takes of one picture, or the reason why there is none."""


class Here:
    """No processes: the model's own prepares the next item when its turn has come."""

    count = 0

    def begin(self, items: list[Any], work: Callable[[Any], Any]) -> Callable[[], list[Any]]:
        """Return what does the work when it is called."""
        return lambda: [work(item) for item in items]


def inputs_of(item: Item, folder: str) -> "dict[str, np.ndarray] | str":
    """Return what the processor in a folder makes of a picture and a prompt, or the reason why the picture does not
    open."""
    image, prompt = item
    try:
        picture = open_picture(image, ImageLimits(), stored=True)
    except ImageFault as fault:
        return fault.reason
    return inputs_of_picture(processor_of(folder), picture, prompt)


def inputs_of_picture(processor: Any, picture: "Image.Image", prompt: str) -> "dict[str, np.ndarray]":
    """Return what a processor makes of a picture and a prompt: name -> array, for one picture alone."""
    made = processor(images=[bounded(processor, picture)], text=[question(processor, prompt)], return_tensors="pt")
    return {name: value.numpy() for name, value in made.items()}


@lru_cache(maxsize=2)
def processor_of(folder: str) -> Any:
    """Return the processor in a model folder, loaded once per process. Raises WeightsError."""
    from transformers import AutoProcessor

    try:
        processor: Any = AutoProcessor.from_pretrained(Path(folder), local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise WeightsError(f"weights of a captioner: the processor in {folder} cannot be loaded: {error}") from error
    if not getattr(processor, "chat_template", None):
        raise WeightsError(
            f"weights of a captioner: {folder} has no chat template, which says where picture and question stand;"
            " wanted a chat_template.jinja, or one in processor_config.json"
        )
    return processor


def complete_processor(processor: Any, model: Any) -> None:
    """Give the processor of an older folder the sizes that it lacks, from its model."""
    vision = getattr(model.config, "vision_config", None)
    if getattr(processor, "patch_size", 0) is None and vision is not None:
        processor.patch_size = vision.patch_size
        processor.vision_feature_select_strategy = model.config.vision_feature_select_strategy
        processor.num_additional_image_tokens = 1


def question(processor: Any, prompt: str) -> str:
    """Return the model's own chat form of one picture and the prompt."""
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": harmless(processor, prompt)}]}
    asked: str = processor.apply_chat_template([turn], add_generation_prompt=True)
    return asked


def harmless(processor: Any, text: str) -> str:
    """Return a text in which no special token of the model stands: strangers' words must not end a turn or stand for a
    picture. A space goes behind the first letter of each; control characters become spaces."""
    text = "".join(letter if letter.isprintable() or letter in KEPT else " " for letter in text)
    found = _special(processor)
    while found and (broken := found.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)) != text:
        text = broken
    return text


def _special(processor: Any) -> re.Pattern[str] | None:
    """Return what finds the special tokens of a tokenizer, its other added tokens but plain words (Qwen2.5-VL's
    `<tool_call>` is not marked special), and what the processor itself replaces by a picture."""
    tokenizer = processor.tokenizer
    added = tokenizer.added_tokens_decoder.values()
    names = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special or not _is_word(token))}
    names |= {str(getattr(processor, name, None) or "") for name in ("image_token", "video_token")}
    longest_first = sorted((name for name in names if len(name.strip()) > 1), key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _is_word(token: Any) -> bool:
    return str(token).strip("▁Ġ ").isalnum()


def bounded(processor: Any, image: "Image.Image") -> "Image.Image":
    """Return a picture as RGB that the processor can scale: its middle where the whole would grow monstrous before the
    middle is cut."""
    from PIL.Image import Resampling

    image, look = image.convert("RGB"), processor.image_processor
    size = getattr(look, "size", None) or {}
    short = size.get("shortest_edge") if "longest_edge" not in size else None
    if not short or not getattr(look, "do_center_crop", False):
        return image
    crop = min(look.crop_size["height"], look.crop_size["width"])
    return middle_of_short_side(image, short, crop, Resampling(look.resample))
