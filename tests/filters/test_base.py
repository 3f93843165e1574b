"""Rules: verdicts worked out by hand, nulls, substitutes, and errors that list the choices."""

from dataclasses import FrozenInstanceError, dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import filters.base
from filters.base import Rule, RuleError, build_filter, known_filters, register


def verdicts(rule: dict, **columns) -> list:
    types = {"text": pa.string(), "language": pa.string(), "width": pa.int32(), "height": pa.int32()}
    arrays = {name: pa.array(values, types.get(name, pa.float32())) for name, values in columns.items()}
    built = build_filter(rule)
    assert set(built.inputs) <= set(columns)
    return built.keep(pa.RecordBatch.from_pydict(arrays)).to_pylist()


def test_every_filter_of_the_design_is_there():
    assert known_filters() == ("aesthetic", "aspect", "language", "nsfw", "similarity", "size", "text", "watermark")


@pytest.mark.parametrize(
    ("rule", "columns", "kept"),
    [
        ({"use": "size"}, {"width": [256, 255, 4000, None], "height": [256, 900, 300, 300]}, [True, False, True, None]),
        (
            {"use": "size", "min_side": 10, "max_side": 20},
            {"width": [10, 9, 21, None], "height": [20, 20, 15, 15]},
            [True, False, False, None],
        ),
        (
            {"use": "aspect"},
            {"width": [300, 301, 100, 0, None], "height": [100, 100, 300, 0, 5]},
            [True, False, True, False, None],
        ),
        (
            {"use": "text", "min_words": 2, "min_chars": 5, "max_chars": 8},
            {"text": ["a cat", " a  ca ", "catcat", "", "  \n", "cats and dogs", "été à", None]},
            [True, True, False, False, False, False, True, None],  # "a  ca" has 5 characters, "cats and dogs" 13
        ),
        ({"use": "language"}, {"language": ["en", "de", None]}, [True, False, None]),
        (
            {"use": "language", "sure": 0.7},
            {"language": ["en", "fr", "fr", "fr", None, "fr"], "language_score": [0.3, 0.9, 0.7, 0.4, 0.9, None]},
            [True, False, False, True, None, False],
        ),
        (
            {"use": "language", "allow": ["en", "de"], "min_score": 0.5},
            {"language": ["en", "de", "fr", "fr", "en", None], "language_score": [0.5, 0.4, 0.9, None, None, 0.9]},
            [True, False, False, False, None, None],
        ),
        (
            {"use": "similarity", "min": 0.28},
            {"similarity": [0.28, 0.27, float("nan"), None]},
            [True, False, None, None],
        ),
        ({"use": "similarity", "min": 0.1, "column": "conse"}, {"conse": [0.2, 0.0]}, [True, False]),
        ({"use": "watermark"}, {"pwatermark": [0.5, 0.51, None]}, [True, False, None]),
        ({"use": "nsfw", "max": 0.3, "column": "opennsfw"}, {"opennsfw": [0.3, 0.31]}, [True, False]),
        ({"use": "aesthetic", "min": 4.75}, {"aesthetic_v2": [4.75, 4.74, None]}, [True, False, None]),
        ({"use": "aesthetic", "min": 7, "model": "v1"}, {"aesthetic_v1": [7.0, 6.9]}, [True, False]),
    ],
)
def test_verdicts(rule, columns, kept):
    assert verdicts(rule, **columns) == kept


def test_a_threshold_is_compared_in_the_column_s_precision():
    assert verdicts({"use": "similarity", "min": 0.3}, similarity=[0.3]) == [True]
    assert verdicts({"use": "similarity", "min": 0.7}, similarity=[0.7]) == [True]  # float32(0.7) is below 0.7
    assert verdicts({"use": "watermark", "max": 0.1}, pwatermark=[0.1]) == [True]  # float32(0.1) is above 0.1


def test_a_substitute_judges_where_the_column_is_null_on_its_own_scale():
    rule = {"use": "similarity", "min": 0.28, "otherwise": {"column": "conse", "min": 0.05}}
    assert build_filter(rule).inputs == ("similarity", "conse")
    got = verdicts(rule, similarity=[0.3, 0.1, None, None, None], conse=[0.0, 0.9, 0.06, 0.04, None])
    assert got == [True, False, True, False, None]
    marked = {"use": "watermark", "max": 0.2, "otherwise": {"column": "stock_mark"}}  # its own default: 0.5
    assert verdicts(marked, pwatermark=[0.3, None, None], stock_mark=[0.0, 0.4, 1.0]) == [False, True, False]


def test_no_rows():
    for use, more in {"similarity": {"min": 0}, "nsfw": {"max": 1}, "aesthetic": {"min": 1}}.items():
        rule = build_filter({"use": use, **more})
        batch = pa.RecordBatch.from_pydict({name: pa.array([], pa.float32()) for name in rule.inputs})
        assert len(rule.keep(batch)) == 0


def test_a_rule_records_its_own_name():
    rule = build_filter({"use": "size", "name": "too_small", "min_side": 512})
    assert (rule.name, build_filter({"use": "size"}).name) == ("too_small", "size")
    with pytest.raises(FrozenInstanceError):
        rule.min_side = 3


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"use": "sizes"}, "no filter 'sizes'; known filters: aesthetic, aspect"),
        ({"use": ["size"]}, "no filter"),
        ({"min_side": 3}, "has no `use`"),
        (
            {"use": "size", "minside": 3},
            "no threshold 'minside'; it has min_side: a whole number = 256, max_side: a whole number or none = none",
        ),
        ({"use": "size", "min_side": "256"}, "min_side = '256', wanted a whole number"),
        ({"use": "size", "min_side": 2.5}, "min_side = 2.5, wanted a whole number"),
        ({"use": "size", "min_side": True}, "min_side = True, wanted a whole number"),
        ({"use": "size", "name": 3}, "name = 3, wanted a text"),
        ({"use": "similarity"}, r"needs 'min'; it has .*min: a finite number \(required\)"),
        ({"use": "similarity", "min": float("nan")}, "min = nan, wanted a finite number"),
        ({"use": "similarity", "min": float("inf")}, "min = inf, wanted a finite number"),
        (
            {"use": "similarity", "min": 0.1, "column": "pwatermark"},
            "column = 'pwatermark', wanted one of similarity, clip_similarity, .*conse",
        ),
        ({"use": "similarity", "min": 0.3, "model": "ViT-L-14"}, "column 'similarity' is on the scale of 'ViT-B-32'"),
        ({"use": "similarity", "min": 0.3, "column": "clip_similarity"}, "say which one the bound means"),
        ({"use": "similarity", "min": 0.1, "otherwise": {"column": "conse"}}, "needs 'min'"),
        ({"use": "similarity", "min": 0.1, "otherwise": {"min": 0.2}}, "otherwise reads 'similarity' again"),
        ({"use": "similarity", "min": 0.1, "otherwise": 0.2}, "otherwise = 0.2, wanted a table of the same thresholds"),
        ({"use": "aesthetic", "min": 5, "model": "v3"}, "model = 'v3', wanted 'v1' or 'v2'"),
        ({"use": "language", "allow": "en"}, "allow = 'en', wanted a list, each a text"),
        ({"use": "language", "allow": ["en", 3]}, "wanted a list, each a text"),
    ],
)
def test_a_faulty_rule_raises_before_any_work(rule, says):
    with pytest.raises(RuleError, match=says):
        build_filter(rule)


def test_a_new_filter_is_a_registered_dataclass(monkeypatch):
    monkeypatch.setattr(filters.base, "FILTERS", dict(filters.base.FILTERS))

    @register("square")
    @dataclass(frozen=True, kw_only=True)
    class Square(Rule):
        inputs = ("width", "height")

        slack: int = 0

        def keep(self, batch):
            return pc.less_equal(pc.abs(pc.subtract(batch.column("width"), batch.column("height"))), self.slack)

    assert "square" in known_filters()
    assert verdicts({"use": "square", "slack": 1}, width=[5, 5, None], height=[6, 7, 5]) == [True, False, None]
    with pytest.raises(ValueError, match="two filters are called 'size'"):
        register("size")(Square)
    with pytest.raises(TypeError, match="put @dataclass"):
        register("plain")(type("Plain", (), {}))
