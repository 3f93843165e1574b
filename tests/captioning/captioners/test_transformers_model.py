"""Models through transformers, on stand-in and tiny random weights in the real folder format."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioning.base import build_captioner, captioner_weights
from captioning.captioner import Ask, Caption, CaptionerError
from captioning.captioners.prepare import bounded, inputs_of, inputs_of_picture, processor_of
from captioning.captioners.transformers_model import TransformersCaptioner
from captioning.stand_in import write_stand_in
from filters.images.scaled import MOST_PIXELS
from manifests.weights import WeightsError
from tests.support.resizes import EXTREME, largest_resize
from tests.support.tiny_vlms import KINDS, write_tiny

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
    assert isinstance(local, TransformersCaptioner)
    assert (stand_in.model, local.model) == ("llava-tiny (stand-in weights)", "llava")
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
    assert isinstance(captioner, TransformersCaptioner)
    monkeypatch.setattr("filters.images.scaled.MOST_PIXELS", MOST_PIXELS // 110)  # as at 336 pixels
    plain = Image.new("RGB", (40, 40), (200, 30, 30))
    with largest_resize():
        some = [bounded(captioner.processor, Image.new("RGB", size, (200, 30, 30))) for size in EXTREME]
    assert [image.size for image in some[:3]] == [(32, 32)] * 3
    assert bounded(captioner.processor, plain).size == plain.size
    assert captioner.caption(some[:1]) == captioner.caption([plain])


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def asks_about(count: int, prompt: str = "What is it?", seed: int = 0) -> list[Ask]:
    return [Ask(bytes([number] * 16), jpeg(image), prompt, seed) for number, image in enumerate(pictures(count))]


def words(captioner: TransformersCaptioner, asks: list[Ask]) -> dict[bytes, str]:
    return {answer.uid: answer.text for answer in captioner.answers(iter(asks))}


@pytest.fixture(scope="module", params=KINDS)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny(request.param, tmp_path_factory.mktemp(request.param)))


def test_every_architecture_says_what_its_own_generate_says_one_by_one(tiny: str) -> None:
    options = {"use": "transformers", "model": tiny, "max_new_tokens": 20}
    captioner = build_captioner("tiny", options, 5)
    asks = asks_about(7)
    found = {answer.uid: answer for answer in captioner.answers(iter(asks))}
    alone = {}
    for ask in asks:
        inputs = captioner.to_device(inputs_of((ask.image, ask.prompt), tiny))
        out = captioner._vlm.generate(**inputs, do_sample=False, max_new_tokens=20, eos_token_id=2, pad_token_id=3)
        answer = out[0, inputs["input_ids"].shape[1] :].tolist()
        kept = [token for token in answer if token != 2]
        text = captioner.processor.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        alone[ask.uid] = (text.strip(), len(kept), inputs["input_ids"].shape[1], answer[-1] != 2)
    assert {uid: (a.text, a.tokens, a.prompt_tokens, a.at_limit) for uid, a in found.items()} == alone
    assert captioner.notes == []
    for size in (1, 2, 32):
        assert words(build_captioner("tiny", options, size), asks) == {uid: text for uid, (text, *_) in alone.items()}


def test_a_seed_draws_other_words_that_no_neighbour_changes(tiny: str) -> None:
    options = {"use": "transformers", "model": tiny, "max_new_tokens": 12}
    greedy, first, second = (words(build_captioner("t", options, 4), asks_about(6, seed=seed)) for seed in (0, 1, 2))
    assert first != greedy
    assert first != second
    assert words(build_captioner("t", options, 1), asks_about(6, seed=1)[::-1]) == first


def test_no_special_token_in_a_strangers_words_becomes_one(tiny: str) -> None:
    processor = processor_of(tiny)
    tokenizer = processor.tokenizer
    names = sorted({*tokenizer.all_special_tokens, *map(str, tokenizer.added_tokens_decoder.values())})
    assert "<image>" in names
    hostile = " ".join([*names, *(name + name for name in names), "<im<image>age>", "a\x00b\x1b[31m"])
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    plain, other = (
        inputs_of_picture(processor, pictures(1)[0], text)["input_ids"][0].tolist() for text in ("x", hostile)
    )
    assert [token for token in other if token in special] == [token for token in plain if token in special]
    captioner = build_captioner("t", {"use": "transformers", "model": tiny, "max_new_tokens": 3}, 2)
    assert len(words(captioner, asks_about(3, hostile))) == 3


def test_a_picture_that_does_not_open_is_a_reason_and_one_that_the_model_refuses_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = build_captioner("llava", {**OPTIONS, "model": str(folder)}, 2)
    asks = asks_about(4)
    asks[1] = Ask(asks[1].uid, b"no picture", "?")
    real = captioner.processor.__class__.__call__

    def refuses(self, images, **more):
        if images[0].size[0] == 74:
            raise ValueError("planted")
        return real(self, images=images, **more)

    monkeypatch.setattr(captioner.processor.__class__, "__call__", refuses)
    found = {answer.uid: answer.reason for answer in captioner.answers(iter(asks))}
    assert found == {
        asks[0].uid: None,
        asks[1].uid: "not_an_image",
        asks[2].uid: "captioner_failed",
        asks[3].uid: None,
    }


def test_a_model_that_fails_on_every_picture_is_one_clear_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = build_captioner("llava", {**OPTIONS, "model": str(folder)}, 2)
    monkeypatch.setattr(captioner.processor.__class__, "__call__", lambda self, **more: 1 / 0)
    with pytest.raises(CaptionerError, match="failed on each of the first 3 pictures: ZeroDivisionError"):
        list(captioner.answers(iter(asks_about(5))))
    with pytest.raises(CaptionerError, match="cannot describe a picture: ZeroDivisionError"):
        build_captioner("llava", {**OPTIONS, "model": str(folder)}, 2)


def test_a_model_whose_slots_give_other_numbers_answers_by_its_own_generate(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = words(build_captioner("llava", {**OPTIONS, "model": str(folder)}, 2), asks_about(3))
    monkeypatch.setattr(TransformersCaptioner, "_close", lambda self, plain, seen: False)
    captioner = build_captioner("llava", {**OPTIONS, "model": str(folder)}, 2)
    assert "one picture at a time, by its own generate" in captioner.notes[0]
    assert captioner.notes[0] in capsys.readouterr().err
    assert words(captioner, asks_about(3)) == expected


def test_pictures_are_prepared_by_whoever_is_ahead(folder: Path) -> None:
    begun: list[int] = []

    class Beside:
        count = 2

        def begin(self, items: list[Any], work: Any) -> Any:
            begun.append(len(items))
            done = [pickle.loads(pickle.dumps(work))(item) for item in items]
            return lambda: done

    options = {**OPTIONS, "model": str(folder)}
    asks = asks_about(10)
    assert words(build_captioner("llava", options, 2, Beside()), asks) == words(
        build_captioner("llava", options, 2), asks
    )
    assert sum(begun) == 10
