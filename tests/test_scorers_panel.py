"""The panel: one pass per encoder, only over the rows that need it, and the same bits whatever the batch."""

import numpy as np
import pytest
from conftest import picture

from filters.scorers.base import Direct
from filters.scorers.catalog import scorer_specs
from filters.scorers.panel import Panel, load_panel
from manifests.weights import STAND_IN

TABLES = {name: {"weights": STAND_IN} for name in ("clip", "aesthetic_v1", "aesthetic_v2", "watermark_laion")}
USE = ["clip_similarity", "aesthetic_v1", "aesthetic_v2"]


class Counting:
    """An encoder whose output is the picture's width, and which notes what it was asked."""

    name = "counting"

    def __init__(self):
        self.asked = []

    def encode(self, images, texts):
        self.asked.append((len(images), list(texts)))
        return {
            "conse": np.array([image.width for image in images], np.float32),
            "opennsfw": np.array([len(text) for text in texts], np.float32),
        }


@pytest.fixture(scope="module")
def panel():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_panel(scorer_specs(USE, TABLES), batch_size=4)
    torch.set_num_threads(threads)


def test_one_pass_over_the_rows_that_any_head_needs():
    encoder = Counting()
    panel = Panel(((encoder, (Direct("conse", "conse"), Direct("opennsfw", "opennsfw"))),))
    images, texts = [picture(n, 10 + n, 8) for n in range(4)], ["a", "bb", "ccc", "dddd"]
    needs = {"conse": np.array([True, False, False, False]), "opennsfw": np.array([True, False, True, False])}
    got = panel.score(images, texts, needs)
    assert encoder.asked == [(2, ["a", "ccc"])]
    np.testing.assert_array_equal(got["conse"], np.array([10, np.nan, np.nan, np.nan], np.float32))
    np.testing.assert_array_equal(got["opennsfw"], np.array([1, np.nan, 3, np.nan], np.float32))
    nothing = panel.score(images, texts, {name: np.zeros(4, bool) for name in needs})
    assert len(encoder.asked) == 1
    assert all(np.isnan(values).all() for values in nothing.values())
    with pytest.raises(ValueError, match="4 pictures with 3 texts"):
        panel.score(images, texts[:3], {})


def test_heads_of_one_encoder_share_it(panel):
    assert len(panel.groups) == 1
    assert [head.name for head in panel.groups[0][1]] == USE


def test_scores_do_not_depend_on_the_batch(panel):
    images, texts = [picture(n, 60 + 7 * n, 90) for n in range(9)], [f"a picture, number {n}" for n in range(9)]
    whole = panel.score(images, texts, {})
    assert set(whole) == {"similarity", "aesthetic_v1", "aesthetic_v2"}
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in whole.values())
    order = np.array([8, 3, 1, 0, 7, 5, 6, 2, 4])
    turned = panel.score([images[i] for i in order], [texts[i] for i in order], {})
    alone = [panel.score([image], [text], {}) for image, text in zip(images, texts, strict=True)]
    for name, values in whole.items():
        assert turned[name].tobytes() == values[order].tobytes()
        assert np.concatenate([one[name] for one in alone]).tobytes() == values.tobytes()


def test_scores_say_something_about_the_picture(panel):
    scores = panel.score([picture(n) for n in range(8)], ["a picture"] * 8, {})
    assert all(values.std() > 0.001 for values in scores.values())
    assert (np.abs(scores["similarity"]) <= 1).all()


def test_no_text_no_similarity(panel):
    scores = panel.score([picture(1), picture(2)], [None, "a picture"], {})
    assert np.isnan(scores["similarity"]).tolist() == [True, False]
    assert np.isfinite(scores["aesthetic_v2"]).all()


def test_two_loads_give_the_same_stand_in(panel):
    again = load_panel(scorer_specs(USE, TABLES), batch_size=4)
    one, two = (some.score([picture(5)], ["five"], {}) for some in (panel, again))
    assert {name: value.tobytes() for name, value in one.items()} == {name: value.tobytes() for name, value in two.items()}
