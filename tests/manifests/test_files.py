"""Files are whole or absent, and their bytes depend on their content alone."""

import errno
import json
import os

import pyarrow as pa
import pytest

from manifests.files import (
    FormatError,
    attempts_of,
    canonical_json,
    digest_of,
    has_columns,
    json_text,
    out_of_room,
    read_json,
    read_metadata,
    read_present,
    read_table,
    sweep,
    sweep_after,
    write_bytes,
    write_json,
    write_table,
    writing,
)


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")
    with pytest.raises(RuntimeError, match="killed"):
        half_write(target)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def half_write(target):
    with writing(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("killed")


def test_two_attempts_have_different_temporary_names(tmp_path):
    target = tmp_path / "a.bin"
    with writing(target) as first, writing(target) as second:
        assert first != second
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert target.read_bytes() == b"1"  # the outer block renames last


def test_sweep_takes_only_leftovers(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".tmp-host-1-ab-x.tar").write_bytes(b"half")
    (tmp_path / "kept.tar").write_bytes(b"whole")
    (tmp_path / "deep" / ".tmp-fresh").mkdir()
    (tmp_path / "deep" / ".tmp-fresh" / "a.parquet").write_bytes(b"half of a plan")
    assert sweep(tmp_path) == 1
    assert list((tmp_path / "deep").iterdir()) == []
    assert (tmp_path / "kept.tar").exists()


def test_what_one_dead_process_left_goes_and_what_others_write_stays(tmp_path):
    mine, other = tmp_path / f"{attempts_of(7)}ab-x.tar", tmp_path / f"{attempts_of(77)}ab-x.tar"
    mine.write_bytes(b"half")
    other.write_bytes(b"half")
    sweep_after(tmp_path, [7])
    assert list(tmp_path.iterdir()) == [other]


def test_canonical_json_is_one_text():
    assert canonical_json({"b": 1, "a": ["é", None]}) == '{"a":["é",null],"b":1}'.encode()
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_json_names_its_format(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    assert read_json(tmp_path / "x.json") == {"format": 1, "a": 1}
    (tmp_path / "y.json").write_text('{"format": 99}')
    with pytest.raises(FormatError, match="99"):
        read_json(tmp_path / "y.json")
    (tmp_path / "z.json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        read_json(tmp_path / "z.json")


def test_tables_are_the_same_bytes_and_name_their_format(tmp_path):
    table = pa.table({"a": list(range(1000))})
    write_table(tmp_path / "1.parquet", table)
    write_table(tmp_path / "2.parquet", table)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert read_table(tmp_path / "1.parquet").equals(table)
    pa.parquet.write_table(table, tmp_path / "foreign.parquet")
    with pytest.raises(FormatError):
        read_table(tmp_path / "foreign.parquet")


@pytest.mark.parametrize(
    ("error", "is_room"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EFBIG, True), (errno.EACCES, False)]
)
def test_out_of_room(error, is_room):
    assert out_of_room(OSError(error, "x")) is is_room
    assert out_of_room(RuntimeError("spill: No space left on device"))
    assert not out_of_room(ValueError("bad"))


def test_columns_that_a_table_lacks_are_left_out_where_some_may(tmp_path):
    write_table(tmp_path / "t.parquet", pa.table({"b": [1], "a": [2]}))
    assert read_present(tmp_path / "t.parquet", ["a", "md5", "b"]).to_pylist() == [{"a": 2, "b": 1}]
    with pytest.raises(FormatError, match="has no column md5"):
        read_table(tmp_path / "t.parquet", ["a", "md5"])


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": {}, "b": [], "c": None, "d": "", "e": 0, "f": [[]]},
        {"a": [1, 2.5, None, True, 'é "quoted"\n'], "b": {"c": {"d": "e"}, "f": [{"g": 1}, {"h": [1, {}]}]}},
        {1: {"a": [(), (1, 2)]}, None: {"b": [3]}, 'k"\\': {"c": [4]}},
        {"shards": [{"path": "a", "bytes": 1}, {"path": "b", "bytes": 2}]},
    ],
    ids=["empty", "empty inside", "nested", "keys", "flat"],
)
def test_indented_json_is_what_python_writes(value):
    assert json_text(value).decode() == json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def test_indented_json_refuses_what_is_no_number():
    for value in ({"a": [float("nan")]}, {"a": {"b": [float("inf"), {}]}}):
        with pytest.raises(ValueError, match="Out of range"):
            json_text(value)


def test_a_table_that_cannot_be_read_has_no_columns(tmp_path):
    path = tmp_path / "a.parquet"
    assert not has_columns(path)
    write_table(path, pa.table({"a": [1], "b": [2]}))
    assert has_columns(path, "a", "b")
    assert not has_columns(path, "a", "c")
    path.write_bytes(path.read_bytes()[:-9])
    assert not has_columns(path, "a")


def test_metadata_is_read_without_the_schema(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, pa.table({"n": [1]}).replace_schema_metadata({"says": "ü"}))
    assert read_metadata(path)[b"says"] == "ü".encode()
    path.write_bytes(b"PAR1")
    with pytest.raises(FormatError, match="not a Parquet table"):
        read_metadata(path)
    with pytest.raises(OSError, match="No such file"):
        read_metadata(tmp_path / "b.parquet")
