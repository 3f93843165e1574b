"""Verdicts are those of the rules asked one by one, and a row has one reason by a fixed precedence."""

import numpy as np
import pyarrow as pa
import pytest

from filters.verdicts import (
    PASSES,
    codes_of,
    final_fates,
    first_failure,
    marked,
    names_of,
    reasons_of,
    verdicts_of,
)
from manifests.schema import COLUMNS
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.rules import build_rules
from tests.support.judged_rows import RECIPE, batch_of


def test_verdicts_are_those_of_the_rules_asked_one_by_one():
    rules = build_rules(parse_recipe(RECIPE))
    batch = batch_of(500)
    got = verdicts_of(rules, batch)
    reasons = reasons_of(rules)
    everywhere, *tiers = (
        names_of(first_failure(some, batch, reasons), reasons).to_pylist()
        for some in (rules.everywhere, *rules.tiers.values())
    )
    for row in range(batch.num_rows):
        member = [k for k, failures in enumerate(tiers) if failures[row] is None]
        wanted = everywhere[row] or (None if member else tiers[0][row])
        assert (None if got.code[row] == PASSES else reasons[got.code[row]]) == wanted
        assert int(got.tiers[row]) == sum(1 << k for k in member)
        assert got.rank[row] == max(member, default=-1)
    assert {reasons[code] for code in got.code if code != PASSES} == {"missing_value", "size", "similarity", "aspect"}


def test_rules_that_are_settled_are_not_asked():
    rules = build_rules(parse_recipe(RECIPE))
    batch = batch_of(200)
    assert "size" not in {
        reasons_of(rules)[code] for code in verdicts_of(rules, batch, frozenset({"size"})).code if code != PASSES
    }


def test_a_null_that_can_still_be_filled_passes_and_later_rules_are_asked():
    size, similarity = build_rules(parse_recipe(RECIPE)).everywhere
    columns = {"width": [None, None, 9], "height": [70, 70, 70], "similarity": [0.5, 0.1, 0.1]}
    arrays = [pa.array(values, COLUMNS[name].type) for name, values in columns.items()]
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    reasons = ("missing_value", "size", "similarity")
    assert first_failure([size, similarity], batch, reasons).tolist() == [0, 0, 1]
    assert first_failure([size, similarity], batch, reasons, {"width"}).tolist() == [PASSES, 2, 1]
    assert first_failure([], batch, reasons).tolist() == [PASSES] * 3
    assert first_failure([size], batch.slice(0, 0), reasons).tolist() == []


def test_codes_and_names_are_one_table():
    reasons = ("missing_value", "size")
    names = pa.array(["size", None, "missing_value"])
    assert codes_of(names, reasons).tolist() == [1, PASSES, 0]
    assert codes_of(names.dictionary_encode(), reasons).tolist() == [1, PASSES, 0]
    assert names_of(codes_of(names, reasons), reasons).equals(names)
    with pytest.raises(KeyError, match="colour"):
        codes_of(pa.array(["colour"]), reasons)


@pytest.mark.parametrize(
    ("row", "fate"),
    [
        ({"planned": True}, (None, None)),
        ({"planned": True, "evaluated": "size"}, ("size", "decide")),
        ({"planned": True, "fault": "http_404", "fault_step": "fetch"}, ("http_404", "fetch")),
        ({"planned": True, "fault": "corrupt", "fault_step": "score", "evaluated": "size"}, ("corrupt", "score")),
        ({"planned": False}, ("exact_duplicate", "fetch")),  # a later row of a uid: the fetch plans the first alone
        ({"planned": False, "selected": "text"}, ("text", "select")),
        ({"planned": False, "selected": "text", "mark": "removed"}, ("removed", "dedup")),
        ({"planned": False, "mark": "removed"}, ("removed", "dedup")),
        ({"planned": True, "mark": "removed", "fault": "removed", "fault_step": "fetch"}, ("removed", "fetch")),
        ({"planned": True, "mark": "removed", "fault": "dns", "fault_step": "fetch"}, ("removed", "dedup")),
        ({"planned": True, "mark": "placeholder", "evaluated": "size"}, ("size", "decide")),  # decide knows of the mark
    ],
)
def test_the_earliest_step_gives_the_reason_but_removed_beats_all(row, fate):
    names = ("selected", "mark", "fault", "fault_step", "evaluated")
    schema = pa.schema([("planned", pa.bool_()), *((name, pa.string()) for name in names)])
    reason, step = final_fates(pa.Table.from_pylist([row], schema=schema))
    assert (reason.to_pylist(), step.to_pylist()) == ([fate[0]], [fate[1]])


@pytest.mark.parametrize(
    ("mark", "code", "wanted"),
    [
        (None, "passes", "passes"),
        ("placeholder", "passes", "placeholder"),
        ("in_eval_set", "size", "size"),  # the rules come first
        ("removed", "size", "removed"),  # but removed beats all
    ],
)
def test_marks_and_rules(mark, code, wanted):
    reasons = reasons_of(build_rules(parse_recipe(RECIPE)))
    given = np.array([PASSES if code == "passes" else reasons.index(code)], np.int16)
    got = marked(given, pa.array([mark], pa.string()), reasons)[0]
    assert ("passes" if got == PASSES else reasons[got]) == wanted
