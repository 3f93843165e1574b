"""Which caption is drawn: by weight among those with words, else the first that has any."""

import numpy as np
import pytest

from pipeline.loading.captions import Drawing, drawable, is_of

SAID = [("alt", "a"), ("llava", "b"), ("llava_short", "c")]


def test_captions_are_drawn_by_weight():
    drawing = Drawing({"llava": 0.7, "llava_short": 0.3, "alt": 0.0})
    drawn = [drawing.draw(SAID, share)[0] for share in np.linspace(0, 1, 1000, endpoint=False)]
    assert drawn.count("llava") == pytest.approx(700, abs=1)
    assert drawn.count("alt") == 0


def test_without_a_wanted_caption_the_first_with_words_is_used_or_none():
    drawing = Drawing({"llava": 1.0})
    assert drawing.draw([("alt", "a"), ("top_caption", "t")], 0.5) == ("alt", "a")
    assert drawing.draw([("alt", ""), ("top_caption", "t")], 0.5) == ("top_caption", "t")
    assert drawing.draw([("alt", " ")], 0.5) == ("alt", " ")
    assert drawing.draw([], 0.5) == ("", "")


def test_an_empty_caption_is_not_drawn_where_another_has_words():
    said = [("alt", " \n"), ("llava", "a cat"), ("top_caption", "t")]
    assert {Drawing({"alt": 1, "llava": 1}).draw(said, share / 50)[1] for share in range(50)} == {"a cat"}


def test_recaptions_are_those_of_the_first_captioner_that_a_sample_has():
    said = (("qwen", "q"), ("llava", "l"), ("llava_short", "s"), ("llava_fit", "f"))
    by_name = {
        name: [Drawing({name: 1.0}).draw([("alt", "a"), *some], 0.0)[1] for some in (said, said[1:], ())]
        for name in ("recaption", "recaption_short", "llava_fit", "qwen_fit")
    }
    assert by_name == {
        "recaption": ["q", "l", "a"],
        "recaption_short": ["a", "s", "a"],
        "llava_fit": ["f", "f", "a"],
        "qwen_fit": ["q", "a", "a"],  # all of it fits
    }


def test_stored_features_serve_every_name_of_their_caption():
    said = [("alt", "a"), ("llava", "l")]
    assert is_of("l", "recaption", said)
    assert is_of("l", "llava_fit", said)
    assert not is_of("a", "recaption", said)
    assert not is_of("", "alt", [("alt", "")])
    assert dict(drawable(said))["recaption"] == "l"
