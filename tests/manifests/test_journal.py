"""The journal tells what is done: under which key, with which files; rows in are rows kept and dropped."""

import contextlib
import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from manifests.files import FormatError, write_bytes, write_json
from manifests.journal import (
    _REMEMBERED,
    STEP,
    FileRecord,
    Journal,
    ShardRecord,
    is_note,
    parse_record,
    records_of,
    upstream,
)
from manifests.record_table import record_bytes, stored_records
from manifests.regular_files import read_plain
from tests.support.records import finished_shard


def test_done_needs_the_key_and_the_files(tmp_path):
    journal, record = Journal(tmp_path, "select"), finished_shard(tmp_path)
    journal.record(record)
    assert journal.done("00000", "k") == record
    assert journal.done("00000", "other") is None
    assert journal.done("00001", "k") is None
    (tmp_path / "out" / "00000.bin").unlink()
    assert journal.done("00000", "k") is None


def test_a_later_run_tries_dead_rows_again(tmp_path):
    journal = Journal(tmp_path, "score")
    journal.record(finished_shard(tmp_path, dropped={"worker_died": 1}))
    assert journal.get("00000") is not None
    assert journal.done("00000", "k") is None


def test_a_damaged_entry_means_make_it_again(tmp_path):
    journal = Journal(tmp_path, "select")
    journal.record(finished_shard(tmp_path))
    (journal.folder / "00000.json").write_text('{"format": 1, "shard": "0')
    assert journal.get("00000") is None


def test_shards_that_left_the_plan_go_with_their_files(tmp_path):
    journal = Journal(tmp_path, "fetch")
    for name in ("00000", "00001"):
        journal.record(finished_shard(tmp_path, name))
    assert journal.forget_others(["00000"]) == 1
    assert not (tmp_path / "out" / "00001.bin").exists()
    assert (tmp_path / "out" / "00000.bin").exists()


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = replace(finished_shard(tmp_path), read={"http://a.test": "ab"})
    Journal(tmp_path, "fetch").record(record)
    assert Journal(tmp_path, "fetch").get("00000") == record
    assert parse_record(tmp_path / "r.json", {"format": 1, **asdict(record)}) == record
    with pytest.raises(FormatError, match=r"r\.json"):
        parse_record(tmp_path / "r.json", {"format": 1, **asdict(record), "rows_in": 4})
    with pytest.raises(FormatError, match=r"r\.json"):
        parse_record(tmp_path / "r.json", {})


def test_a_record_under_another_name_is_not_believed(tmp_path):
    journal = Journal(tmp_path, "fetch")
    journal.record(finished_shard(tmp_path))
    (journal.folder / "00000.json").rename(journal.folder / "00001.json")
    assert journal.get("00001") is None


def test_the_note_of_how_a_step_was_done(tmp_path):
    journal = Journal(tmp_path, "score")
    assert journal.note() is None
    note = {"own_key": "ab", "settings": {"batch": 8}}
    write_json(journal.folder / STEP, note, sealed=True)  # as older code wrote it, without the step
    assert journal.note() == {"format": 1, **note}
    write_json(journal.folder / STEP, {**note, "step": "fetch"}, sealed=True)
    assert journal.note() is None
    (journal.folder / STEP).write_text("{")
    assert journal.note() is None
    assert is_note({**note, "step": "score"}, "score")
    assert not is_note({"own_key": "ab"}, "score")
    assert not is_note({**note, "own_key": 5}, "score")


def test_records_of_a_step_come_by_name_without_its_note(tmp_path):
    journal = Journal(tmp_path, "fetch")
    for name in ("00001", "00000", "00002"):
        journal.record(finished_shard(tmp_path, name))
    (journal.folder / "00002.json").write_text("{")
    write_json(journal.folder / STEP, {"own_key": "", "settings": {}})
    assert [record.shard for record in records_of(tmp_path, "fetch")] == ["00000", "00001"]
    assert records_of(tmp_path, "score") == []


def test_what_a_later_step_reads_has_the_digest_of_the_files(tmp_path):
    assert upstream(tmp_path, "fetch") == hashlib.sha256(b"[]").hexdigest()
    file = FileRecord("a", "11", 1)
    Journal(tmp_path, "fetch").record(ShardRecord("00000", "k", (file,), 1, 1))
    content = hashlib.sha256(b'[["a","11"]]').hexdigest()
    assert (
        upstream(tmp_path, "select", "fetch") == hashlib.sha256(f'[["fetch","00000","{content}"]]'.encode()).hexdigest()
    )


def aged(path, seconds=1):
    at = path.stat().st_mtime_ns - seconds * 1_000_000_000
    os.utime(path, ns=(at, at))


def test_a_record_is_read_once_and_anew_when_its_file_is_another(tmp_path, monkeypatch):
    journal, record = Journal(tmp_path, "select"), finished_shard(tmp_path)
    path, reads = journal.folder / "00000.json", []
    monkeypatch.setattr("manifests.journal.read_plain", lambda of: reads.append(of) or read_plain(of))
    journal.record(record)
    assert [journal.get("00000"), *records_of(tmp_path, "select")] == [record, record]
    assert len(reads) == 2  # written a moment ago: its inode may be another file's within the tick of the clock
    aged(path)
    assert [journal.get("00000"), journal.get("00000"), *records_of(tmp_path, "select")] == [record] * 3
    assert len(reads) == 3
    os.link(path, path.with_name("00001.json"))
    assert journal.get("00001") is None  # the same bytes under another name are no record of it
    other = replace(record, key="f" * len(record.key))
    journal.record(other)
    aged(path)
    assert (journal.get("00000"), records_of(tmp_path, "select"), len(reads)) == (other, [other], 4)
    path.write_text("{")
    assert (journal.get("00000"), records_of(tmp_path, "select")) == (None, [])
    path.unlink()
    path.symlink_to("nowhere")
    assert (journal.get("00000"), records_of(tmp_path, "select")) == (None, [])


def test_what_is_remembered_is_bounded(tmp_path, monkeypatch):
    journal = Journal(tmp_path, "select")
    monkeypatch.setattr("manifests.journal.MOST", 2)
    for number in range(5):
        journal.record(finished_shard(tmp_path, f"{number:05d}"))
        aged(journal.folder / f"{number:05d}.json")
    assert [record.shard for record in records_of(tmp_path, "select")] == [f"{number:05d}" for number in range(5)]
    assert len(_REMEMBERED) <= 2


NAMES = ("00000", "00001", "00002")


@pytest.fixture
def ended(tmp_path):
    """Return the journal of a step of three shards that has ended, and its records."""
    journal = Journal(tmp_path, "fetch")
    records = [finished_shard(tmp_path, name) for name in NAMES]
    for record in reversed(records):
        journal.record(record)
    journal.compact()
    return journal, records


def files(journal):
    return sorted(path.name for path in journal.folder.parent.rglob("*") if path.is_file())


def test_the_records_of_a_step_that_has_ended_lie_in_a_table_and_its_copy(ended, tmp_path):
    journal, records = ended
    assert files(journal) == ["fetch.copy.parquet", "fetch.parquet"]
    table, copy = journal.tables
    assert table.read_bytes() == copy.read_bytes() == record_bytes("fetch", records)
    assert [journal.get(name) for name in (*NAMES, "00003")] == [*records, None]
    assert records_of(tmp_path, "fetch") == records
    assert journal.done("00001", "k") == records[1]
    assert journal.done("00001", "k", now=True) is None  # not made since
    before = table.stat().st_ino
    journal.compact()
    assert table.stat().st_ino == before  # nothing to do


def test_a_json_is_newer_than_the_table(ended, tmp_path):
    journal, records = ended
    other = replace(records[1], key="other")
    journal.record(other)
    assert journal.get("00001") == journal.done("00001", "other", now=True) == other
    assert records_of(tmp_path, "fetch") == [records[0], other, records[2]]
    journal.path("00000").write_text("{")  # damaged: what it says is not what the table says
    assert journal.get("00000") is None
    assert records_of(tmp_path, "fetch") == [other, records[2]]
    journal.compact()
    assert files(journal) == ["00000.json", "fetch.copy.parquet", "fetch.parquet"]
    assert records_of(tmp_path, "fetch") == [other, records[2]]


@pytest.mark.parametrize("writes", range(6))
def test_a_kill_while_records_are_gathered_leaves_what_reads_the_same(ended, tmp_path, monkeypatch, writes):
    """Killed before the first write, between the two, or between the JSONs that go."""
    journal, records = ended
    new = [replace(record, key="new") for record in records]
    for record in new:
        journal.record(record)
    left = iter([None] * writes)

    def step(act):
        def acting(*args, **named):
            if next(left, "killed") == "killed":
                raise KeyboardInterrupt
            return act(*args, **named)

        return acting

    with monkeypatch.context() as patch:
        patch.setattr("manifests.journal.write_bytes", step(write_bytes))
        patch.setattr("pathlib.Path.unlink", step(Path.unlink))
        with contextlib.suppress(KeyboardInterrupt):
            journal.compact()
    assert records_of(tmp_path, "fetch") == new
    assert journal.heal() == ""
    assert records_of(tmp_path, "fetch") == new
    journal.compact()
    assert files(journal) == ["fetch.copy.parquet", "fetch.parquet"]
    assert records_of(tmp_path, "fetch") == new
    assert len({path.read_bytes() for path in journal.tables}) == 1


DAMAGES = {
    "flipped": lambda data: bytes([*data[:200], data[200] ^ 1, *data[201:]]),
    "cut": lambda data: data[:-9],
    "emptied": lambda data: b"",
    "of another step": lambda data: record_bytes("score", [ShardRecord("00000", "k", (), 0, 0)]),
    "of no record": lambda data: record_bytes("fetch", []),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_table_costs_nothing(ended, tmp_path, damage, which):
    journal, records = ended
    path, whole = journal.tables[which], journal.tables[which].read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    assert records_of(tmp_path, "fetch") == records
    assert [journal.get(name) for name in NAMES] == records
    told = journal.heal()
    assert told.startswith(f"fetch: {path}: ")
    assert told.endswith(": written again from its copy")
    assert path.read_bytes() == whole
    assert journal.heal() == ""
    path.unlink()
    assert journal.heal() == f"fetch: {path}: No such file or directory: written again from its copy"
    assert path.read_bytes() == whole


def test_where_both_tables_are_damaged_no_record_is_made_up(ended, tmp_path):
    journal, _ = ended
    for path in journal.tables:
        path.write_bytes(b"?")
    assert records_of(tmp_path, "fetch") == []
    with pytest.raises(FormatError, match=r"fetch\.parquet: not a Parquet table .*; .*fetch\.copy\.parquet: not"):
        journal.heal()


def test_a_damaged_table_is_read_once(ended, monkeypatch):
    journal, records = ended
    table, copy = journal.tables
    table.write_bytes(b"?")
    aged(table)
    aged(copy)
    reads = []
    monkeypatch.setattr("manifests.journal.stored_records", lambda *of: reads.append(of) or stored_records(*of))
    assert [journal.get(name) for name in NAMES * 9] == records * 9
    assert reads == [(table, "fetch"), (copy, "fetch")]


def test_records_are_forgotten_wherever_they_lie(ended, tmp_path):
    journal, records = ended
    journal.record(replace(records[1], key="other"))
    journal.record(finished_shard(tmp_path, "00009"))
    journal.forget(["00001", "00009", "00010"])
    assert records_of(tmp_path, "fetch") == [records[0], records[2]]
    assert (tmp_path / "out" / "00001.bin").exists()
    assert journal.forget_others(["00000"]) == 1
    assert not (tmp_path / "out" / "00002.bin").exists()
    assert journal.forget_others([]) == 1
    assert files(journal) == []
