"""Captions and alt texts on one scale, by the scorer that the recipe names."""

import io

import numpy as np
from PIL import Image

from filters.scorers.panel import Scored
from pipeline.steps.caption_scores import CaptionScores
from tests.support.attempts import recipe_of


def jpeg(grey):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(file, "JPEG")
    return file.getvalue()


class Panel:
    """Scores a text by its length and the picture by its grey; none without a text."""

    def __init__(self):
        self.sizes = []

    def score(self, images, texts, needs):
        self.sizes.append(len(images))
        assert texts["caption"] == [None] * len(images)
        values = [np.nan if text is None else len(text) for text in texts["text"]]
        return Scored({"conse": np.array(values, np.float32)})


def test_without_a_name_nothing_is_scored_and_nothing_is_in_the_key():
    scores = CaptionScores(recipe_of())
    assert (scores.name, scores.specs, scores.weights(), scores.settings()) == (None, (), (), {})


def test_captions_are_held_beside_alt_texts(monkeypatch):
    recipe = recipe_of({"similarity": "conse"})
    recipe = recipe.model_copy(update={"score": recipe.score.model_copy(update={"batch_size": 2})})
    panel = Panel()
    monkeypatch.setattr(CaptionScores, "panel", panel)
    scores = CaptionScores(recipe)
    assert [spec.name for spec in scores.specs] == ["conse"]
    assert scores.settings()["similarity"][0] == "conse"
    pairs = [(bytes([n]), jpeg(n)) for n in range(4)] + [(b"x", b"no picture")]
    captions = {b"\0": "four", b"\1": "fives", b"\3": "a", b"x": "y"}
    found = {}
    for some in scores.scored(pairs, captions, {b"\0": "ab", b"\1": None, b"\3": ""}):
        found.update(some)
    assert found == {b"\0": (4.0, 2.0), b"\1": (5.0, None), b"\3": (1.0, None)}
    assert panel.sizes == [2, 2, 1, 1]
