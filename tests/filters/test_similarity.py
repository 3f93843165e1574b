"""The bound on the cosine of picture and text: whose scale it is on must be known."""

import pytest

from filters.base import RuleError, build_filter
from filters.similarity import Similarity
from tests.support.filter_verdicts import verdicts


def test_the_input_s_column_is_read_unless_another_is_named():
    assert verdicts({"use": "similarity", "min": 0.28}, similarity=[0.28, 0.27, float("nan"), None]) == [
        True,
        False,
        None,
        None,
    ]
    assert verdicts({"use": "similarity", "min": 0.1, "column": "conse"}, conse=[0.2, 0.0]) == [True, False]


def test_a_cosine_may_be_negative():
    assert verdicts({"use": "similarity", "min": -0.1}, similarity=[-0.1, -0.2]) == [True, False]


def test_two_spellings_of_one_model_have_one_scale():
    assert Similarity(min=0.3, model="ViT-B-32-quickgelu").scale == "ViT-B-32"
    own = Similarity(min=0.3, column="clip_similarity", model="ViT-L-14-quickgelu")
    assert (own.scale, own.inputs) == ("ViT-L-14", ("clip_similarity",))
    assert Similarity(min=0.3).scale == ""  # the column's own scale is meant


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (
            {"min": 0.3, "model": "ViT-L-14"},
            "model = 'ViT-L-14', but column 'similarity' is on the scale of 'ViT-B-32'",
        ),
        ({"min": 0.1, "column": "conse", "model": "ViT-B-32"}, "column 'conse' is on the scale of 'ConSE'"),
        ({"min": 0.3, "column": "clip_similarity"}, 'say which one the bound means: model = "ViT-L-14"'),
        ({"min": 0.3, "column": "clip_similarity_caption"}, "has the scale of score.clip.model"),
        (
            {"min": 0.1, "column": "pwatermark"},
            "column = 'pwatermark', wanted one of similarity, clip_similarity, clip_similarity_caption, conse",
        ),
        ({}, r"needs 'min'; it has .*min: a finite number \(required\)"),
        ({"min": float("nan")}, "min = nan, wanted a finite number"),
        ({"min": float("inf")}, "min = inf, wanted a finite number"),
    ],
)
def test_a_bound_on_an_unknown_scale_is_refused(rule, says):
    with pytest.raises(RuleError, match=says):
        build_filter({"use": "similarity", **rule})
