"""pipeline/execution/redact_aside.py: removed rows are found in what lies aside, and go from it with its record
anew."""

import pytest

from manifests.aside import ASIDE, UNDER_WAY, Group, groups
from manifests.files import read_table
from manifests.journal import FileRecord
from pipeline.execution.redact_aside import SCORES, every_group, files_aside, redact_aside, uids_of
from pipeline.execution.redaction import RemovedRows
from tests.support.groups import scores
from tests.support.records import uid


def put(root, place, name, numbers):
    folder = root / place / "score"
    record = scores(folder, name, [(uid(number), "x") for number in numbers])
    (folder / record.files[0].path).rename(folder / f"{name}-scores.parquet")
    files = (FileRecord.of(folder, folder / f"{name}-scores.parquet"),)
    group = Group(folder, name, "score", "one", len(numbers), f"{name}-scores.parquet", files)
    group.write()
    return group


@pytest.fixture
def root(anywhere):
    root = anywhere
    put(root, ASIDE, "a", [0, 1])
    put(root, ASIDE, "b", [1])
    put(root, ASIDE, "c", [2])
    put(root, UNDER_WAY, "d", [1, 3])
    return root


def held(root):
    """Return the rows of each group, in order."""
    tables = (read_table(path, ["uid"]) for path in files_aside(root, SCORES))
    return sorted(sorted(one[0] for one in table["uid"].to_pylist()) for table in tables)


def test_rows_go_from_every_group_and_their_records_are_of_what_is_left(root):
    removed = RemovedRows(frozenset([uid(1)]))
    assert held(root) == [[0, 1], [1], [1, 3], [2]]
    untouched = (root / ASIDE / "score" / "c.json").read_bytes()
    redact_aside(root, removed)
    assert held(root) == [[0], [2], [3]]  # a group without rows goes
    assert [(group.rows, group.damaged()) for group in every_group(root)] == [(1, [])] * 3
    assert (root / ASIDE / "score" / "c.json").read_bytes() == untouched
    assert len(list((root / ASIDE / "score").glob("*.*"))) == 4  # two tables, two records
    assert dict(removed.counts) == {"aside/score": 2, "earlier/score": 1}


@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_group_goes_whole_with_a_word(root, capsys, cut):
    path = root / ASIDE / "score" / "a-scores.parquet"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data[:-9] if cut else data)
    redact_aside(root, RemovedRows(frozenset([uid(1)])))
    assert held(root) == [[2], [3]]
    assert "aside/score/a.json: damaged, and let go with its 2 rows (" in capsys.readouterr().err
    assert groups(root, ASIDE, "score")[0].name == "c"


def test_keys_of_samples_are_uids_in_hex():
    import pyarrow as pa

    keys = pa.chunked_array([["07" * 16], ["ff" * 16]])
    assert uids_of(keys).to_pylist() == [uid(7), uid(255)]
