"""A bound on one of several columns: a substitute judges where the column is null, on its own scale."""

from dataclasses import dataclass

import pyarrow as pa
import pytest

from filters.base import RuleError, build_filter
from filters.measured import AtLeast, AtMost
from tests.support.filter_verdicts import verdicts


@dataclass(frozen=True, kw_only=True)
class Sharp(AtLeast):
    """A filter that no recipe knows."""

    use = "sharp"
    columns = ("fine", "rough", "guess")


@dataclass(frozen=True, kw_only=True)
class Dull(AtMost):
    """The same the other way round."""

    use = "dull"
    columns = ("fine", "rough")


def batch(**columns):
    return pa.RecordBatch.from_pydict({name: pa.array(values, pa.float32()) for name, values in columns.items()})


def test_equal_is_kept_on_both_sides():
    rows = batch(fine=[0.5, 0.49, 0.51, None])
    assert Sharp(column="fine", min=0.5).keep(rows).to_pylist() == [True, False, True, None]
    assert Dull(column="fine", max=0.5).keep(rows).to_pylist() == [True, True, False, None]


def test_a_chain_of_substitutes_judges_row_by_row():
    rule = Sharp(
        column="fine",
        min=0.5,
        otherwise=Sharp(column="rough", min=2.0, otherwise=Sharp(column="guess", min=0.0)),
    )
    assert rule.inputs == ("fine", "rough", "guess")
    rows = batch(
        fine=[0.4, None, None, None, None, float("nan")],
        rough=[9.0, 2.0, 1.9, None, None, 3.0],
        guess=[9.0, -1.0, 1.0, -1.0, None, -1.0],
    )
    # row 0: its own column counts, whatever the others say; row 5: NaN is null; row 4: nobody knows
    assert rule.keep(rows).to_pylist() == [False, True, False, False, None, True]
    assert rule.verdict(rows).to_pylist() == [False, None, None, None, None, None]


def test_a_substitute_of_a_recipe_has_the_filter_s_own_default():
    rule = {"use": "similarity", "min": 0.28, "otherwise": {"column": "conse", "min": 0.05}}
    assert build_filter(rule).inputs == ("similarity", "conse")
    got = verdicts(rule, similarity=[0.3, 0.1, None, None, None], conse=[0.0, 0.9, 0.06, 0.04, None])
    assert got == [True, False, True, False, None]
    marked = {"use": "watermark", "max": 0.2, "otherwise": {"column": "stock_mark"}}  # its own default: 0.5
    assert verdicts(marked, pwatermark=[0.3, None, None], stock_mark=[0.0, 0.4, 1.0]) == [False, True, False]
    assert verdicts({"use": "nsfw", "max": 0.3, "column": "opennsfw"}, opennsfw=[0.3, 0.31]) == [True, False]
    assert verdicts({"use": "watermark"}, pwatermark=[0.5, 0.51, None]) == [True, False, None]


def test_no_rows():
    rule = Sharp(column="fine", min=0.5, otherwise=Sharp(column="rough", min=2.0))
    assert rule.keep(batch(fine=[], rough=[])).to_pylist() == []


def test_columns_that_make_no_sense_are_refused():
    with pytest.raises(RuleError, match="filter 'sharp': column = 'coarse', wanted one of fine, rough, guess"):
        Sharp(column="coarse", min=0.5)
    with pytest.raises(RuleError, match="filter 'dull': otherwise reads 'fine' again; name another column of fine, ro"):
        Dull(column="fine", max=0.5, otherwise=Dull(column="rough", max=1.0, otherwise=Dull(column="fine", max=0.1)))


@pytest.mark.parametrize(
    ("otherwise", "says"),
    [
        ({"column": "conse"}, "needs 'min'"),
        ({"min": 0.2}, "otherwise reads 'similarity' again"),
        (0.2, "otherwise = 0.2, wanted a table of the same thresholds"),
    ],
)
def test_a_faulty_substitute_of_a_recipe_is_refused(otherwise, says):
    with pytest.raises(RuleError, match=says):
        build_filter({"use": "similarity", "min": 0.1, "otherwise": otherwise})
