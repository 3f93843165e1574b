"""Rows of fetch shards are evaluated each for itself; what must meet its twins goes to another file."""

import numpy as np

from filters.verdicts import reasons_of
from pipeline.execution.in_flight import InFlight
from pipeline.recipes.rules import build_rules
from pipeline.steps.arrow_files import read_arrow
from pipeline.steps.evaluate import CONTESTED, EVALUATED, NOT_EVALUATED, Evaluate, scratch_of, units_of
from pipeline.steps.facts import fetch_shards
from pipeline.steps.labels import write_marks
from pipeline.steps.twins import Twins, write_clusters
from tests.support.records import uid
from tests.support.undecided import undecided_recipe, undecided_run


def test_verdicts_and_rivals_of_a_unit(tmp_path):
    root, recipe = undecided_run(tmp_path), undecided_recipe(tmp_path)
    scratch = scratch_of(root)
    Twins(recipe, root).make()
    write_clusters(scratch)
    write_marks(root, scratch, np.empty((0, 2), np.uint64))
    first, second = units_of(fetch_shards(root), 4, "k")
    assert (first.name, first.reads["rows"], second.reads["rows"], first.key) == ("00000", 4, 2, "k")
    step = Evaluate(recipe, root)
    record = step.open().run(second, InFlight())
    assert record.read == {
        "rows": [2],
        "spans": [[["b.parquet", 2, 3]]],
        "removed": [uid(8).hex()],
        "digests": True,
        "contested": 0,
    }
    record = step.run(first, InFlight())
    assert (record.rows_in, record.read["rows"], record.read["contested"]) == (4, [2, 2], 2)
    assert record.read["spans"] == [[["a.parquet", 0, 2]], [["a.parquet", 3, 3], ["b.parquet", 0, 0]]]
    evaluated = read_arrow(scratch / "evaluated" / "00000.arrow")
    assert evaluated.schema == EVALUATED
    assert evaluated["code"].to_pylist() == [-1, NOT_EVALUATED, -1, -1]  # 1, 3, 4, 5
    assert evaluated["tiers"].to_pylist() == [0b11, 0, 0b01, 0b11]
    assert evaluated["cluster"].to_pylist() == [uid(1), None, None, uid(1)]
    contested = read_arrow(scratch / "contested" / "00000.arrow")
    assert contested.schema == CONTESTED
    row = {"cluster": uid(1), "rank": 1, "pixels": 360_000}
    assert contested.to_pylist() == [
        {**row, "uid": uid(1), "aesthetic": 6.0, "home": 0},
        {**row, "uid": uid(5), "aesthetic": 6.5, "home": 3},
    ]
    placeholder = reasons_of(build_rules(recipe)).index("placeholder")
    assert read_arrow(scratch / "evaluated" / "00001.arrow")["code"].to_pylist() == [placeholder, NOT_EVALUATED]


def test_units_hold_whole_shards(tmp_path):
    shards = list(fetch_shards(undecided_run(tmp_path)))
    units = units_of(shards, 5, "")
    assert [[shard["name"] for shard in unit.reads["shards"]] for unit in units] == [["00000", "00001"], ["00002"]]
    assert [unit.reads["rows"] for unit in units] == [4, 2]
    assert len(units_of(shards, 1, "")) == 3
    assert units_of([], 5, "") == []
