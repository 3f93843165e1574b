"""What each grouping sends where, by hand."""

import numpy as np
import pyarrow as pa
import pytest

from filters.forest import NOBODY
from manifests.files import write_json
from manifests.layout import SCRATCH
from manifests.schema import schema
from pipeline.execution import shuffle
from pipeline.execution.shuffle import Slices, here
from pipeline.recipes.load import parse_recipe
from pipeline.steps import near_legs
from pipeline.steps.near_legs import INTO, STAMP, TABLES, ByHash, ByTable, ByUid, Components, Named, Pairs, Roots
from tests.support.records import put_table, uid

RECIPE = {"dedup": {"radius": 2}, "tier": {"a": {"size": 16}}}
MASKS = [0xFFFF_FFFF, 0xFFFF_FFFF_0000_0000]


@pytest.fixture
def legs(tmp_path, monkeypatch):
    """Return the legs over six pictures in two shards, in one part: 3 and 5 are near, 4 and 1 share a pHash."""
    monkeypatch.setattr(near_legs, "GROUP_ROWS", 1)
    shards = [[(3, 0b0), (4, 0xFF), (9, None)], [(5, 0b11), (1, 0xFF), (2, 0xFF00)]]
    for number, rows in enumerate(shards):
        table = [{"uid": uid(one), "phash": value} for one, value in rows]
        put_table(tmp_path, "score", f"scores/{number:05d}.parquet", table, schema("uid", "phash"))
    write_json(tmp_path / SCRATCH / INTO / STAMP, {"stamp": "work", "rows": 6})
    write_json(tmp_path / SCRATCH / INTO / TABLES, {"tables": MASKS})
    kinds = (ByHash, ByTable, Pairs, Components, Roots, Named, ByUid)
    return {kind: kind(parse_recipe(RECIPE), tmp_path) for kind in kinds}


def rows(legs, kind, part=0):
    """Return the rows of a part behind a leg, sorted."""
    return sorted(tuple(row.values()) for row in Slices.of(kind, legs[kind].root).of_part(part).to_pylist())


def number(value):
    return int.from_bytes(bytes([value] * 8))


def test_every_leg_sends_what_the_next_one_needs(legs):
    for leg in legs.values():
        leg.make(here)
    pictures = [(0b0, 3), (0b11, 5), (0xFF, 1), (0xFF, 4), (0xFF00, 2)]
    assert rows(legs, ByHash) == [(value, number(one), number(one)) for value, one in pictures]
    assert rows(legs, ByHash, 1) == rows(legs, ByHash)  # the sample of few is all of them
    distinct = [(0b0,), (0b11,), (0xFF,), (0xFF00,)]
    assert [rows(legs, ByTable, part) for part in (0, 1)] == [distinct, distinct]
    assert rows(legs, Pairs) == [(0b0, 0b11)]
    assert rows(legs, Components) == [(0b0, 0b0), (0b0, 0b11)]
    assert rows(legs, Roots) == [(0b0, 0b0, number(3), number(3), 0, 1), (0b0, 0b11, number(5), number(5), 0, 1)]
    assert rows(legs, Named) == [(0b0, number(3), number(3), 0, 2), (0b11, number(3), number(3), 0, 2)]
    labels = [(1, 0xFF, 1, 2), (2, 0xFF00, 2, 1), (3, 0b0, 3, 2), (4, 0xFF, 1, 2), (5, 0b11, 3, 2)]
    wanted = [(*[number(one)] * 2, value, *[number(of)] * 2, 0, size) for one, value, of, size in labels]
    assert rows(legs, ByUid) == wanted


def test_a_pair_that_agrees_in_both_tables_comes_from_the_first(legs):
    """The second table's part of 0 and 3, which differ in low bits alone, finds them; the first cannot."""
    pairs = legs[Pairs]
    units = {unit.reads["part"]: unit for unit in pairs.plan()}
    assert sorted(units) == [0, 1]
    near = pa.table({"phash": pa.array([0b0, 0b11], pa.uint64())})
    assert [sum(batch.num_rows for _, batch in pairs.spread(units[part], near)) for part in (0, 1)] == [0, 1]


def test_a_removed_picture_comes_behind_all_others(legs):
    """Of a component's two pHashes one is a removed picture's alone: its rows are barred and keep their own uid."""
    named = legs[Named]
    (unit,) = named.plan()
    columns = {"root": [7, 7], "phash": [7, 9], "high": [NOBODY, 4], "low": [NOBODY, 5], "bars": [1, 0], "size": [0, 2]}
    given = pa.table({name: pa.array(values, Roots.carried.field(name).type) for name, values in columns.items()})
    ((parts, batch),) = named.spread(unit, given)
    assert parts.tolist() == [0, 0]
    assert batch.to_pylist() == [{"phash": value, "high": 4, "low": 5, "bars": 1, "size": 2} for value in (7, 9)]


def test_units_hold_some_shards_and_parts_some_bytes(legs, monkeypatch):
    assert [unit.reads["files"] for unit in legs[ByHash].plan()] == [["scores/00000.parquet"], ["scores/00001.parquet"]]
    monkeypatch.setattr(near_legs, "GROUP_ROWS", 4)
    assert [len(unit.reads["files"]) for unit in legs[ByHash].plan()] == [2]
    monkeypatch.setattr(shuffle, "SLICE_BYTES", 24)  # 6 rows of 24 bytes; of 8 bytes in a table; of 45 behind it all
    assert [legs[kind].parts() for kind in (ByHash, ByTable, ByUid)] == [6, 4, 12]
    assert [len(legs[kind].plan()) for kind in (ByTable, Pairs, Components, ByUid)] == [6, 4, 1, 6]
    assert np.unique([unit.reads["parts"] for unit in legs[ByHash].plan()]).tolist() == [7]
