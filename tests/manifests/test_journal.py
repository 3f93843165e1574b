"""The journal tells what is done: under which key, with which files; rows in are rows kept and dropped."""

import hashlib
import os
from dataclasses import asdict, replace

import pytest

from manifests.files import FormatError, read_json, write_json
from manifests.journal import (
    _REMEMBERED,
    STEP,
    ConservationError,
    FileRecord,
    Journal,
    ShardRecord,
    by_kind,
    conserve,
    is_note,
    kept_by_kind,
    parse_record,
    records_of,
    total_dropped,
    upstream,
)
from tests.support.records import finished_shard


def test_rows_of_a_shard_are_kept_plus_dropped(tmp_path):
    with pytest.raises(ConservationError, match="shard 00000: 3 rows in, but 2 kept"):
        finished_shard(tmp_path, dropped={})
    conserve("all", 6, 1, {"dns": 2, "tls": 3})
    with pytest.raises(ConservationError) as raised:
        conserve("all", 5, 1, {"dns": 2, "tls": 3})
    assert str(raised.value) == "all: 5 rows in, but 1 kept + 5 dropped {'dns': 2, 'tls': 3}"


def test_file_record(tmp_path):
    record = finished_shard(tmp_path).files[0]
    assert (record.path, record.bytes) == ("out/00000.bin", 5)
    assert record.sha256 == hashlib.sha256(b"00000").hexdigest()
    assert record.is_whole(tmp_path)
    (tmp_path / "out" / "00000.bin").write_bytes(b"cut")
    assert not record.is_whole(tmp_path)


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


def test_content_and_totals(tmp_path):
    one, two = finished_shard(tmp_path), finished_shard(tmp_path, "00001", dropped={"nsfw": 1})
    assert one.content != two.content
    assert one.content == replace(one, key="other").content
    assert total_dropped([one, two, two]) == {"nsfw": 2, "size": 1}


def test_reasons_are_added_most_frequent_first_then_by_name():
    shards = [
        ShardRecord("0", "k", (), 9, 2, {"tls": 3, "dns": 3, "size": 1}),
        ShardRecord("1", "k", (), 5, 0, {"size": 5}),
    ]
    assert list(total_dropped([*shards, ShardRecord("2", "k", (), 1, 1, {"robots": 0})]).items()) == [
        ("size", 6),
        ("dns", 3),
        ("tls", 3),
    ]


def test_rows_are_added_up_by_tier():
    shards = [
        ShardRecord(name, "k", (), rows, rows) for name, rows in (("b-x-00000", 1), ("a-00000", 2), ("a-00001", 3))
    ]
    assert list(kept_by_kind(shards).items()) == [("a", 5), ("b-x", 1)]


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
    monkeypatch.setattr("manifests.journal.read_json", lambda of: reads.append(of) or read_json(of))
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


def test_records_by_the_kind_of_their_shards():
    records = [ShardRecord(name, "k", (), rows, rows) for name, rows in (("b-00", 3), ("a-x-00", 1), ("b-01", 4))]
    assert {kind: [one.shard for one in own] for kind, own in by_kind(records).items()} == {
        "b": ["b-00", "b-01"],
        "a-x": ["a-x-00"],
    }
    assert list(kept_by_kind(records).items()) == [("a-x", 1), ("b", 7)]
