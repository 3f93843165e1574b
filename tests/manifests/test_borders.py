"""Malformed bytes make every reader of manifests/ raise FormatError with the file's name."""

import errno
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import (
    FormatError,
    open_table,
    parse_json,
    parsing,
    read_field,
    read_json,
    read_parquet,
    read_table,
    write_json,
    write_table,
)
from manifests.journal import ConservationError, Journal, parse_record
from manifests.lineage import lost, read_removal, removals
from manifests.manifest import Manifest, ManifestError, read_digests
from manifests.query import connect, files_sql
from manifests.recipe_file import headed, read_headed
from manifests.records import read_records
from manifests.shard_table import shard_table
from manifests.shards import Index, ShardError, index_counts, read_shard, verify_shard, write_shard
from manifests.stored_pictures import stored_pictures
from manifests.tombstones import TOMBSTONES, note_tombstones, read_tombstones
from manifests.transaction import NOTES, PENDING, TransactionError, finish
from manifests.verify_shards import verify_folder

DEEP = b"[" * 200_000
"""JSON and TOML nested deeper than Python recurses."""

NO_SHARDS = shard_table({})


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyError("members"), "r.json: not a record (KeyError: 'members')"),
        (TypeError("no int"), "r.json: not a record (TypeError: no int)"),
        (IndexError("of 3"), "r.json: not a record (IndexError: of 3)"),
        (AttributeError("no items"), "r.json: not a record (AttributeError: no items)"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "r.json: not a record (UnicodeDecodeError: 'utf-8' codec"),
        (OverflowError("too large"), "r.json: not a record (OverflowError: too large)"),
        (RecursionError("deep"), "r.json: not a record (RecursionError: deep)"),
        (EOFError(), "r.json: not a record (EOFError: )"),
        (struct.error("4 bytes"), "r.json: not a record (error: 4 bytes)"),
        (zlib.error("header"), "r.json: not a record (error: header)"),
        (tarfile.ReadError("header"), "r.json: not a record (ReadError: header)"),
        (pa.ArrowInvalid("magic\nand more"), "r.json: not a record (ArrowInvalid: magic)"),
        (pa.ArrowSerializationError("thrift"), "r.json: not a record (ArrowSerializationError: thrift)"),
        (OSError("ZSTD decompression failed"), "r.json: not a record (OSError: ZSTD decompression failed)"),
        (ConservationError("3 in, 2 out"), "r.json: not a record (ConservationError: 3 in, 2 out)"),
    ],
)
def test_what_a_parser_raises_becomes_a_format_error_with_the_file(error, says):
    with pytest.raises(FormatError) as raised, parsing("r.json", "not a record"):
        raise error
    assert str(raised.value).startswith(says)
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        pa.ArrowMemoryError("malloc of size 9 failed"),
        AssertionError("a defect"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        FormatError("said before"),
    ],
)
def test_faults_of_the_machine_and_of_the_code_are_none_of_the_file(error):
    with pytest.raises(type(error)) as raised, parsing("r.json", "not a record"):
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (DEEP, "not JSON"),
        (b'{"format": 1, "n": NaN}', "not JSON"),
        (b"[1]", "format ?"),
        (b'{"format": 2}', "format 2"),
        (b'{"format": 1, "text": "\\ud800", "seal": "0"}', "no digest"),
        (b'{"format": 1, "seal": "0"}', "its seal says 0"),
    ],
)
def test_json_objects(tmp_path, data, says):
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=rf"r\.json: .*{says.replace('?', '.')}"):
        read_json(path)


def test_a_field_is_of_its_kind(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, {"stages": {"filter": 1}, "files": [2]})
    assert read_field(path, "stages", dict) == {"filter": 1}
    assert read_field(path, "files", list) == [2]
    with pytest.raises(FormatError, match=r"r\.json: its files is a list, wanted a dict"):
        read_field(path, "files", dict)
    with pytest.raises(FormatError, match=r"r\.json: its shards is a NoneType, wanted a dict"):
        read_field(path, "shards", dict)


def test_json_of_other_people():
    assert parse_json("n.json", b'{"loss": NaN}').keys() == {"loss"}
    with pytest.raises(FormatError, match=r"n\.json: not JSON \(RecursionError"):
        parse_json("n.json", DEEP)


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "t.parquet"
    write_table(path, pa.table({"uid": [b"a" * 16] * 99, "reason": ["x"] * 99}))
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def zeros_inside(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)
    path.write_bytes(data)


def text(path: Path) -> None:
    path.write_bytes(b"<html>gone</html>")


DAMAGES: list[Callable[[Path], None]] = [cut, zeros_inside, text]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tables(table, damage):
    damage(table)
    for read in (read_table, read_parquet):
        with pytest.raises(FormatError, match=r"t\.parquet: not a Parquet table that can be read \(\w+: "):
            read(table)


def test_tables_of_another_format_or_without_a_column(table, tmp_path):
    with pytest.raises(FormatError, match=r"t\.parquet: has no column cluster"):
        read_table(table, ["uid", "cluster"])
    with pytest.raises(FormatError, match=r"t\.parquet: not a Parquet table.*KeyError"), open_table(table) as file:
        file.read()["cluster"]
    other = tmp_path / "o.parquet"
    pq.write_table(pa.table({"uid": [1]}), other)
    assert read_parquet(other, ["uid"]).to_pydict() == {"uid": [1]}
    with pytest.raises(FormatError, match=r"o\.parquet: format \?, this version reads 1"):
        read_table(other)
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "none.parquet")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_query_over_a_damaged_table(table, tmp_path, damage):
    damage(table)
    with (
        pytest.raises(FormatError, match=f"{tmp_path}: a stored table cannot be read"),
        connect(tmp_path) as connection,
    ):
        connection.execute(f"SELECT * FROM {files_sql([table])}").fetchall()


def test_a_query_for_a_column_that_is_not_there_and_one_that_is_wrong_itself(table, tmp_path):
    with pytest.raises(FormatError, match="cluster"), connect(tmp_path) as connection:
        connection.execute(f"SELECT cluster FROM {files_sql([table])}")
    with pytest.raises(duckdb.ParserException), connect(tmp_path) as connection:
        connection.execute("SELEKT 1")
    with pytest.raises(duckdb.OutOfMemoryException), connect(tmp_path):
        raise duckdb.OutOfMemoryException("Out of Memory Error: could not allocate block")
    with pytest.raises(duckdb.IOException, match="No space"), connect(tmp_path):
        raise duckdb.IOException('Could not write file "x": No space left on device')


def record(**other: object) -> dict[str, object]:
    file = {"path": "pairs/00000.tar", "sha256": "00", "bytes": 1, "counted": ""}
    return {"shard": "00000", "key": "k", "files": [file], "rows_in": 3, "rows_out": 2, "dropped": {"dead": 1}, **other}


MALFORMED_RECORDS = [
    ({"files": None}, "TypeError"),
    ({"files": [{"path": "a"}]}, "TypeError"),
    ({"files": [{"path": 1, "sha256": "", "bytes": 2}]}, "TypeError: a text or a number is something else"),
    ({"rows_out": "2"}, "TypeError"),
    ({"dropped": [1]}, "AttributeError"),
    ({"dropped": {}}, "ConservationError: shard 00000: 3 rows in, but 2 kept"),
    ({"later": 1}, "TypeError"),
]


@pytest.mark.parametrize(("change", "says"), MALFORMED_RECORDS)
def test_records_of_shards(tmp_path, change, says):
    assert parse_record(tmp_path / "00000.json", record()).dropped == {"dead": 1}
    with pytest.raises(FormatError, match=rf"00000\.json: not a shard's record \({says}"):
        parse_record(tmp_path / "00000.json", record(**change))
    journal = Journal(tmp_path, "fetch")
    write_json(journal.folder / "00000.json", record(**change), sealed=True)
    assert journal.get("00000") is None
    (finding,) = (found for found in read_records(tmp_path, {}).findings if "journal" in found.path)
    assert (finding.path, finding.kind) == ("manifests/journal/fetch/00000.json", "damaged")
    assert finding.says.startswith("not a shard's record (")


def test_a_record_that_holds_half_a_character_is_damaged(tmp_path):
    path = tmp_path / "manifests" / "journal" / "fetch" / "00000.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"format": 1, "shard": "\\ud800"}')
    (finding,) = (found for found in read_records(tmp_path, {}).findings if "journal" in found.path)
    assert finding.kind == "damaged"
    assert finding.says.startswith("holds what no record does (UnicodeEncodeError")


def test_an_input_list_whose_files_are_none_is_damaged(tmp_path):
    for files in ([1], [{"made": ["a"]}], [{"made": 5}]):
        write_json(tmp_path / "manifests" / "input.json", {"files": files}, sealed=True)
        (finding,) = (found for found in read_records(tmp_path, {}).findings if found.path == "manifests/input.json")
        assert finding.kind == "damaged"
        assert finding.says.startswith("not a list of input files (")


def manifest(**other: object) -> dict[str, object]:
    lists: dict[str, object] = {name: [] for name in ("inputs", "weights", "losses")} | {"shards": NO_SHARDS}
    counts = {"rows_in": 1, "kept": 1, "dropped": {}, "tiers": {}, "versions": {}}
    return {"stage": "filter", "recipe_digest": "00", **lists, **counts, **other}


@pytest.mark.parametrize(
    "change",
    [
        {"shards": [1]},
        {"shards": 3},
        {"shards": [{"path": "a"}]},
        {"shards": {}},
        {"rows_in": "1"},
        {"kept": 2},
        {"dropped": None},
        {"later": 1},
    ],
)
def test_manifests_that_are_none(tmp_path, change):
    path = tmp_path / "filter.json"
    write_json(path, {**manifest(), "shards": [], **change, "digest": "00"}, sealed=True)
    with pytest.raises(ManifestError, match=r"filter\.json: not a manifest of this version \("):
        Manifest.read(path)
    assert issubclass(ManifestError, FormatError)


@pytest.mark.parametrize("change", [{"inputs": [{}]}, {"inputs": [3]}])
def test_a_manifest_whose_lists_hold_something_else(tmp_path, change):
    path = tmp_path / "filter.json"
    entry = {**manifest(), **change}
    digest = Manifest(**entry).digest  # type: ignore[arg-type]
    write_json(path, {**entry, "shards": [], "digest": digest}, sealed=True)
    with pytest.raises(ManifestError, match=r"filter\.json: its inputs are none \("):
        Manifest.read(path)


def test_a_list_of_digests_that_is_none_counts_as_missing(tmp_path):
    write_json(tmp_path / "manifests" / "digests.json", {"stages": [1, 2]}, sealed=True)
    assert read_digests(tmp_path) == {}


@pytest.mark.parametrize("stages", [None, [1], {"filter": None}, {"filter": {"before": "a"}}])
def test_records_of_removals(tmp_path, stages):
    path = tmp_path / "manifests" / "removals" / "0001.json"
    write_json(path, {"stages": stages}, sealed=True)
    with pytest.raises(FormatError, match=r"0001\.json: not a removal's record \("):
        read_removal(path)
    assert removals(tmp_path) == []
    assert lost(tmp_path) == ["manifests/removals/0001.json"]


def test_recipes_of_runs(tmp_path):
    path = tmp_path / "recipe.toml"
    for damaged in (b"a = ", b"a = '\xff'", b"a = " + DEEP):
        path.write_bytes(headed(damaged))
        with pytest.raises(FormatError, match=r"recipe\.toml: not TOML \("):
            read_headed(path)


def test_tombstones(tmp_path):
    write_table(tmp_path / TOMBSTONES, pa.table({"kind": ["url"]}))
    note_tombstones(tmp_path)
    text(tmp_path / TOMBSTONES)
    with pytest.raises(FormatError, match=r"tombstones\.parquet: damaged"):
        read_tombstones(tmp_path)
    (tmp_path / "manifests" / "journal" / "remove" / "tombstones.json").unlink()
    with pytest.raises(FormatError, match=r"tombstones\.parquet: not a Parquet table"):
        read_tombstones(tmp_path)


@pytest.mark.parametrize("note", [{"put": 1, "drop": []}, {"put": {}}, {"put": ["ab", "c"], "drop": []}])
def test_notes_of_removals(tmp_path, note):
    for name in NOTES:
        write_json(tmp_path / PENDING / name, note, sealed=True)
    with pytest.raises(TransactionError, match=r"\.removal/removal\.json, which say what it had changed, are damaged"):
        finish(tmp_path)
    assert (tmp_path / PENDING / NOTES[0]).exists()


INDEX = {"shard": "0.tar", "sha256": "00", "bytes": 2048, "samples": 1, "members": [["a.jpg", 512, 3, 7]]}


@pytest.mark.parametrize(
    "change",
    [
        {"members": None},
        {"members": [["a.jpg", 512]]},
        {"members": [["a.jpg", "x", 3, 7]]},
        {"members": [["\ud800", 512, 3, 7]]},
        {"bytes": None},
    ],
)
def test_indexes_of_shards(tmp_path, change):
    path = tmp_path / "0.index.json"
    path.write_bytes(json.dumps({"format": 1, **INDEX, **change}).encode())
    with pytest.raises(FormatError, match=r"0\.index\.json: not a shard's index \(\w+: "):
        Index.read(path)


def test_counts_of_an_index(tmp_path):
    write_json(tmp_path / "0.index.json", INDEX)
    assert index_counts(tmp_path / "0.index.json") == (1, 2048, "00")
    write_json(tmp_path / "0.index.json", {**INDEX, "samples": None})
    for read, path in ((index_counts, "0.index.json"), (verify_shard, "0.tar")):
        with pytest.raises(FormatError, match=r"0\.index\.json: not a shard's index \(TypeError"):
            read(tmp_path / path)


def test_tars(tmp_path):
    path = tmp_path / "0.tar"
    for damaged in (b"<html>gone</html>" * 99, b"\x1f\x8b" + bytes(1024)):
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match=r"0\.tar: damaged \("):
            list(read_shard(path))
        with pytest.raises(ShardError, match=r"0\.tar: damaged \("):
            list(stored_pictures(path))
    assert issubclass(ShardError, FormatError)


@pytest.mark.parametrize("stats", [b"", DEEP, b"[]", b"{}", b'{"count": 1}'])
def test_verify_says_which_file_beside_a_bare_shard_is_malformed(tmp_path, stats):
    picture = {"jpg": b"j", "txt": b"", "json": DEEP}
    write_shard(tmp_path / "00000.tar", [("k", picture)])
    pq.write_table(pa.table({"key": ["k"], "status": ["success"]}), tmp_path / "00000.parquet")
    (tmp_path / "00000_stats.json").write_bytes(stats)
    findings = {finding.path: finding.says for finding in verify_folder(tmp_path).findings}
    assert findings.keys() == {"00000.tar", "00000_stats.json"}
    assert findings["00000.tar"].endswith("not the row of its table")
    assert findings["00000_stats.json"].startswith("not a shard's statistics (" if stats else "empty")


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_says_which_table_beside_a_bare_shard_is_malformed(tmp_path, damage):
    write_shard(tmp_path / "00000.tar", [("k", {"jpg": b"j"})])
    pq.write_table(pa.table({"key": ["k"] * 99, "status": ["success"] * 99}), tmp_path / "00000.parquet")
    damage(tmp_path / "00000.parquet")
    findings = {finding.path: finding.says for finding in verify_folder(tmp_path).findings}
    assert findings["00000.parquet"].startswith("cannot be read as a table of pairs (not a Parquet table")


def test_verify_says_that_a_table_of_something_else_is_none_of_pairs(tmp_path):
    write_shard(tmp_path / "00000.tar", [("k", {"jpg": b"j"})])
    pq.write_table(pa.table({"name": ["k"]}), tmp_path / "00000.parquet")
    findings = {finding.path: finding.says for finding in verify_folder(tmp_path).findings}
    assert findings["00000.parquet"] == "cannot be read as a table of pairs (not a table of pairs (KeyError: 'status'))"
