"""manifests/journal_records.py: verify reads the records of shards in tables and JSONs, and names what is damaged."""

import shutil
from dataclasses import replace

import pytest

from manifests.files import write_bytes
from manifests.findings import Records
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.journal_records import read_journals
from manifests.record_table import record_bytes

TABLE, COPY = "manifests/journal/score.parquet", "manifests/journal/score.copy.parquet"
ONE, TWO = (
    ShardRecord(name, "k", (FileRecord(f"scores/{name}.parquet", "ab", 7),), 3, 3) for name in ("00000", "00001")
)


@pytest.fixture
def journal(tmp_path):
    """Return the journal of a step that has ended."""
    journal = Journal(tmp_path, "score")
    for record in (ONE, TWO):
        journal.record(record)
    journal.compact()
    return journal


def read(journal):
    """Return (shards, (path, kind, what is said) of the findings)."""
    records = Records(journal.root)
    read_journals(records)
    assert {TABLE, COPY} <= records.known
    assert {claim.by for claim in records.claims.values()} <= {"its journal"}
    found = [(finding.path, finding.kind, finding.says) for finding in records.findings]
    return records.journal.get("score", {}), found


def test_a_whole_journal_has_no_findings(journal):
    assert read(journal) == ({"00000": ONE, "00001": TWO}, [])
    other = replace(ONE, files=(FileRecord("scores/00000.parquet", "cd", 8),))
    journal.record(other)
    assert read(journal) == ({"00000": other, "00001": TWO}, [])
    journal.path("00000").write_text("{")
    shards, found = read(journal)
    assert list(shards) == ["00001"]
    assert [path for path, _, _ in found] == ["manifests/journal/score/00000.json"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: write_bytes(path, b""), "empty"),
        (lambda path: write_bytes(path, path.read_bytes()[:-9]), "not a Parquet table"),
        (lambda path: write_bytes(path, record_bytes("fetch", [ONE, TWO])), "not the records of score"),
        (lambda path: write_bytes(path, record_bytes("score", [])), "holds no record"),
        (lambda path: path.unlink(), "not there, though the other of the two is"),
    ],
)
def test_a_damaged_table_is_named_and_its_copy_counts(journal, damage, says):
    for name, path in zip((TABLE, COPY), journal.tables, strict=True):
        whole = path.read_bytes()
        damage(path)
        shards, found = read(journal)
        assert shards == {"00000": ONE, "00001": TWO}
        assert [(finding[0], says in finding[2]) for finding in found] == [(name, True)]
        path.write_bytes(whole)


def test_no_byte_of_a_table_can_change_unnoticed(journal):
    path = journal.tables[1]
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        assert [(name, kind) for name, kind, _ in read(journal)[1]] == [(COPY, "damaged")]


def test_a_copy_that_is_older_is_unfinished(journal):
    journal.tables[0].write_bytes(record_bytes("score", [replace(ONE, key="new"), TWO]))
    shards, found = read(journal)
    assert shards["00000"].key == "new"
    assert found == [(COPY, "unfinished", "older than score.parquet: the next run of its step writes it again")]


def test_a_record_of_files_of_another_step(journal):
    stray = replace(ONE, files=(FileRecord("pairs/00000.tar", "ab", 7),))
    for path in journal.tables:
        path.write_bytes(record_bytes("score", [stray, TWO]))
    shards, found = read(journal)
    assert list(shards) == ["00001"]
    assert found == [(TABLE, "damaged", "names pairs/00000.tar: not that of score 00000")]


def test_tables_that_are_damaged_both(journal, tmp_path):
    shutil.copy(__file__, journal.tables[0])
    journal.tables[1].unlink()
    shards, found = read(journal)
    assert shards == {}
    assert [(path, kind) for path, kind, _ in found] == [(TABLE, "damaged"), (COPY, "missing")]
