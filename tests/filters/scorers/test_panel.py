"""The panel: one pass per encoder, only over the rows that need it, and the same bits whatever the batch."""

import numpy as np
import pytest

from filters.scorers.base import Compute, Direct
from filters.scorers.catalog import scorer_specs
from filters.scorers.panel import Panel, load_panel
from manifests.weights import STAND_IN
from tests.support.small_web import picture

TABLES = {
    name: {"weights": STAND_IN} for name in ("clip", "aesthetic_v1", "aesthetic_v2", "clip_nsfw", "watermark_laion")
}
USE = ["clip_similarity", "aesthetic_v1", "aesthetic_v2", "clip_nsfw"]


class Counting:
    """An encoder whose output is the picture's width, and which notes what it was asked."""

    name = "counting"
    preprocessing = "none"

    def __init__(self):
        self.asked = []

    def encode(self, images, texts):
        self.asked.append((len(images), list(texts["text"])))
        return {
            "conse": np.array([image.width for image in images], np.float32),
            "opennsfw": np.array([len(text) for text in texts["text"]], np.float32),
        }


@pytest.fixture(scope="module")
def panel(one_thread):
    return load_panel(scorer_specs(USE, TABLES), Compute(4))


def scored(panel, images, texts, captions=None):
    return panel.score(images, {"text": texts, "caption": captions or texts}, {}).columns


def test_one_pass_over_the_rows_that_any_head_needs():
    encoder = Counting()
    panel = Panel(((encoder, (Direct("conse", "conse"), Direct("opennsfw", "opennsfw"))),))
    images, texts = [picture(n, 10 + n, 8) for n in range(4)], ["a", "bb", "ccc", "dddd"]
    needs = {"conse": np.array([True, False, False, False]), "opennsfw": np.array([True, False, True, False])}
    got = panel.score(images, {"text": texts}, needs).columns
    assert encoder.asked == [(2, ["a", "ccc"])]
    np.testing.assert_array_equal(got["conse"], np.array([10, np.nan, np.nan, np.nan], np.float32))
    np.testing.assert_array_equal(got["opennsfw"], np.array([1, np.nan, 3, np.nan], np.float32))
    nothing = panel.score(images, {"text": texts}, {name: np.zeros(4, bool) for name in needs}).columns
    assert len(encoder.asked) == 1
    assert all(np.isnan(values).all() for values in nothing.values())
    with pytest.raises(ValueError, match="4 pictures with 3 texts of kind 'text'"):
        panel.score(images, {"text": texts[:3]}, {})


def test_heads_of_one_encoder_share_it(panel):
    assert len(panel.groups) == 1
    assert [head.name for head in panel.groups[0][1]] == USE


def test_scores_do_not_depend_on_the_batch(panel):
    images, texts = [picture(n, 60 + 7 * n, 90) for n in range(9)], [f"a picture, number {n}" for n in range(9)]
    whole = scored(panel, images, texts)
    assert set(whole) == {"clip_similarity", "clip_similarity_caption", "aesthetic_v1", "aesthetic_v2", "clip_nsfw"}
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in whole.values())
    order = np.array([8, 3, 1, 0, 7, 5, 6, 2, 4])
    turned = scored(panel, [images[i] for i in order], [texts[i] for i in order])
    alone = [scored(panel, [image], [text]) for image, text in zip(images, texts, strict=True)]
    for name, values in whole.items():
        assert turned[name].tobytes() == values[order].tobytes()
        assert np.concatenate([one[name] for one in alone]).tobytes() == values.tobytes()


def test_scores_say_something_about_the_picture(panel):
    scores = scored(panel, [picture(n) for n in range(8)], ["a picture"] * 8)
    assert all(values.std() > 0.001 for values in scores.values())
    assert (np.abs(scores["clip_similarity"]) <= 1).all()
    assert ((scores["clip_nsfw"] > 0) & (scores["clip_nsfw"] < 1)).all()


def test_no_text_no_similarity(panel):
    scores = scored(panel, [picture(1), picture(2)], [None, "a picture"], ["a caption", None])
    assert np.isnan(scores["clip_similarity"]).tolist() == [True, False]
    assert np.isnan(scores["clip_similarity_caption"]).tolist() == [False, True]
    assert np.isfinite(scores["aesthetic_v2"]).all()


def test_two_loads_give_the_same_stand_in(panel):
    again = load_panel(scorer_specs(USE, TABLES), Compute(4))
    one, two = (scored(some, [picture(5)], ["five"]) for some in (panel, again))
    assert {name: value.tobytes() for name, value in one.items()} == {
        name: value.tobytes() for name, value in two.items()
    }


def test_embeddings_are_those_that_the_heads_read(panel):
    kept = load_panel(scorer_specs(["aesthetic_v2"], TABLES), Compute(4), embeddings=True)
    images = [picture(n) for n in range(3)]
    found = kept.score(images, {"text": [None] * 3, "caption": [None] * 3}, {"aesthetic_v2": np.zeros(3, bool)})
    assert np.isnan(
        found.columns["aesthetic_v2"]
    ).all()  # nobody asked for the score, the embeddings are kept all the same
    assert (found.embeddings.dtype, found.embeddings.shape) == (np.float16, (3, 768))
    assert np.allclose(np.linalg.norm(found.embeddings.astype(np.float64), axis=1), 1, atol=1e-3)
    encoder = panel.groups[0][0]
    assert np.array_equal(
        found.embeddings, encoder.encode(images, {"text": ["a"] * 3, "caption": ["a"] * 3})["image"].astype(np.float16)
    )


def test_bf16_is_near_and_not_equal(panel):
    rough = load_panel(scorer_specs(["aesthetic_v2"], TABLES), Compute(4, "bf16"))
    images = [picture(n) for n in range(4)]
    exact = scored(panel, images, ["x"] * 4)["aesthetic_v2"]
    near = scored(rough, images, ["x"] * 4)["aesthetic_v2"]
    assert 0 < np.abs(near - exact).max() < 1.0


def test_preprocessing_is_said(panel):
    said = load_panel(scorer_specs(["clip_similarity", "watermark_laion"], TABLES), Compute(2)).preprocessing
    assert "256 x 256 px bilinear, aspect not kept" in said["watermark_laion"]
    assert "Resize(size=64, interpolation=bicubic" in said["clip"]
    assert "CenterCrop(size=(64, 64))" in said["clip"]
    assert "mean=(0.48145466, 0.4578275, 0.40821073)" in said["clip"]
