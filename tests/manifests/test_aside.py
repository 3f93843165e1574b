"""manifests/aside.py: a group is what its sealed record says, or it is nothing."""

import json

import pytest

from manifests.aside import ASIDE, Group, groups, read_group, steps_aside, unread, unrecorded
from manifests.files import FormatError, write_bytes, write_json
from manifests.journal import FileRecord


@pytest.fixture
def group(tmp_path):
    folder = tmp_path / ASIDE / "score"
    write_bytes(folder / "abc-scores.parquet", b"12345")
    write_bytes(folder / "abc-pairs.tar", b"678")
    files = tuple(FileRecord.of(folder, folder / f"abc-{end}") for end in ("scores.parquet", "pairs.tar"))
    made = Group(folder, "abc", "score", "model", 2, "abc-scores.parquet", files)
    made.write()
    return made


def test_a_group_is_read_as_it_was_written(group, tmp_path):
    assert read_group(group.path) == group
    assert groups(tmp_path, ASIDE, "score") == [group]
    assert (group.bytes, group.damaged()) == (8, [])
    assert steps_aside(tmp_path) == ["score"]
    assert steps_aside(tmp_path / "elsewhere") == []


def test_files_that_are_not_of_their_sha256_are_named(group):
    (group.folder / "abc-scores.parquet").write_bytes(b"12346")
    (group.folder / "abc-pairs.tar").unlink()
    assert group.damaged() == ["abc-scores.parquet", "abc-pairs.tar"]


def test_a_record_that_was_changed_counts_for_nothing(group, tmp_path):
    text = group.path.read_text().replace('"rows": 2', '"rows": 3')
    group.path.write_text(text)
    assert groups(tmp_path, ASIDE, "score") == []
    assert list(unread(tmp_path, ASIDE, "score")) == [group.path]
    with pytest.raises(FormatError, match="its seal says"):
        read_group(group.path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", "2"),
        ("step", "caption"),
        ("table", "other-scores.parquet"),
        ("files", [{"path": "abc-x", "sha256": 1}]),
    ],
)
def test_a_record_of_something_else_is_none(group, field, value):
    entry = {key: other for key, other in json.loads(group.path.read_text()).items() if key not in ("format", "seal")}
    write_json(group.path, {**entry, field: value}, sealed=True)
    with pytest.raises(FormatError, match="not the record of what was set aside"):
        read_group(group.path)


def test_files_in_other_folders_are_not_taken_for_a_groups(group):
    entry = {key: other for key, other in json.loads(group.path.read_text()).items() if key not in ("format", "seal")}
    entry["files"][1]["path"] = "abc-/../../../pairs/00000.tar"
    write_json(group.path, entry, sealed=True)
    with pytest.raises(FormatError):
        read_group(group.path)


def test_files_without_a_record_are_what_a_kill_left(group):
    write_bytes(group.folder / "def-scores.parquet", b"")
    write_bytes(group.folder / "notes.txt", b"")
    assert list(unrecorded(group.folder)) == [group.folder / "def-scores.parquet"]
    group.drop()
    assert [path.name for path in group.folder.iterdir() if path.name.startswith("abc")] == []
