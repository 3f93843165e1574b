"""LLaVA through transformers, on stand-in weights in the real folder format."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioning.base import build_captioner, captioner_weights
from captioning.captioner import Caption
from captioning.llava import Llava
from captioning.stand_in import write_stand_in
from filters.images.scaled import MOST_PIXELS
from manifests.weights import WeightsError
from tests.support.resizes import EXTREME, largest_resize

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = {"model": "stand-in", "max_new_tokens": 12}


def pictures(count: int) -> list[Image.Image]:
    """Return pictures of 4 x 4 coloured fields, of several sizes."""
    fields = np.random.default_rng(5).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(field).resize((60 + 7 * i, 80), Image.Resampling.NEAREST) for i, field in enumerate(fields)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stand_in(tmp_path_factory.mktemp("llava"))


def test_a_folder_says_what_the_stand_in_says_and_names_its_weights(folder: Path) -> None:
    images = pictures(3)
    stand_in = build_captioner("llava", OPTIONS, 4)
    local = build_captioner("llava", {**OPTIONS, "model": str(folder)}, 4)
    assert isinstance(local, Llava)
    assert (stand_in.model, local.model, local.prompt) == ("llava-tiny (stand-in weights)", "llava", "describe_v1")
    assert local.revision == captioner_weights("llava", {"model": str(folder)})[0].sha256
    assert local.caption(images) == stand_in.caption(images)


def test_a_batch_says_what_single_pictures_say() -> None:
    images = pictures(6)
    captioner = build_captioner("llava", OPTIONS, 4)
    together = captioner.caption(images)
    assert len({caption.text for caption in together}) == 6  # the picture decides the words
    assert [captioner.caption([image])[0] for image in images] == together
    assert captioner.caption(images[::-1]) == together[::-1]
    assert captioner.caption(images) == together
    assert captioner.caption([]) == []


def test_a_caption_has_text_short_and_flags() -> None:
    (caption,) = build_captioner("llava", OPTIONS, 1).caption(pictures(1))
    assert isinstance(caption, Caption)
    assert caption.text.startswith(caption.short)
    assert "truncated" in caption.flags  # random weights seldom end a sentence within 12 tokens
    assert "<" not in caption.text
    assert "USER" not in caption.text


def test_answers_end_at_the_token_limit() -> None:
    images = pictures(2)
    short = build_captioner("llava", {**OPTIONS, "max_new_tokens": 4}, 2).caption(images)
    long = build_captioner("llava", OPTIONS, 2).caption(images)
    assert [len(caption.text.split()) for caption in short] == [4, 4]
    assert all(b.text.startswith(a.text) for a, b in zip(short, long, strict=True))


def test_the_prompt_reaches_the_model() -> None:
    images = pictures(4)
    first, other = (
        build_captioner("llava", {**OPTIONS, "prompt": name}, 4).caption(images)
        for name in ("describe_v1", "one_sentence_v1")
    )
    assert first != other


def test_a_pixel_mode_other_than_rgb_is_converted() -> None:
    captioner = build_captioner("llava", OPTIONS, 1)
    grey = pictures(1)[0].convert("L")
    assert captioner.caption([grey]) == captioner.caption([grey.convert("RGB")])


def test_one_load_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_captioner("llava", OPTIONS, 2)
    monkeypatch.setattr("captioning.stand_in.write_stand_in", lambda folder: pytest.fail("loaded again"))
    assert build_captioner("llava", {**OPTIONS, "max_new_tokens": 3}, 4).model == first.model


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_an_older_processor_gets_its_sizes_from_the_model(folder: Path, tmp_path: Path) -> None:
    old = copy(folder, tmp_path / "old")
    processor = json.loads((old / "processor_config.json").read_text())
    for key in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
        del processor[key]
    (old / "processor_config.json").write_text(json.dumps(processor))
    images = pictures(2)
    assert build_captioner("llava", {**OPTIONS, "model": str(old)}, 2).caption(images) == build_captioner(
        "llava", OPTIONS, 2
    ).caption(images)


def test_weights_of_another_shape_or_with_parts_missing_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    wide, part, other = (copy(folder, tmp_path / name) for name in ("wide", "part", "other"))
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("lm_head.weight"))
    save_file({**tensors, name: np.zeros((7, 7), np.float32)}, wide / "model.safetensors", {"format": "pt"})
    save_file(
        {key: value for key, value in tensors.items() if key != name}, part / "model.safetensors", {"format": "pt"}
    )
    (other / "model.safetensors").write_bytes(b"not a tensor file")
    for broken, says in (
        (wide, "cannot be loaded|shape"),
        (part, "lacks parameters: .*lm_head"),
        (other, "cannot be loaded"),
    ):
        with pytest.raises(WeightsError, match=says):
            build_captioner("llava", {**OPTIONS, "model": str(broken)}, 2)


def test_no_picture_grows_monstrous_on_its_way_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor scales the short side to 32 (336 in LLaVA 1.5) before it cuts the middle."""
    captioner = build_captioner("llava", OPTIONS, 1)
    assert isinstance(captioner, Llava)
    monkeypatch.setattr("filters.images.scaled.MOST_PIXELS", MOST_PIXELS // 110)  # as at 336 pixels
    plain = Image.new("RGB", (40, 40), (200, 30, 30))
    with largest_resize():
        bounded = [captioner._bounded(Image.new("RGB", size, (200, 30, 30))) for size in EXTREME]
    assert [image.size for image in bounded[:3]] == [(32, 32)] * 3
    assert captioner._bounded(plain) is plain
    assert captioner.caption(bounded[:1]) == captioner.caption([plain])
