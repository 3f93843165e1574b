"""A pipe is refused at once instead of waited for, and a circle of links is walked once."""

import os

import pytest

from manifests.regular_files import open_plain, read_plain, walk


def test_plain_files_and_links_to_them_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"four")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read_plain(tmp_path / "a") == b"four"
    assert read_plain(tmp_path / "link") == b"four"
    with open_plain(str(tmp_path / "a"), buffering=0) as file:
        assert (file.read(2), file.read(9)) == (b"fo", b"ur")


def test_pipes_and_folders_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    open_files = len(os.listdir("/proc/self/fd"))
    for name in ("pipe", "."):
        with pytest.raises(OSError, match="not a plain file") as raised:
            read_plain(tmp_path / name)
        assert raised.value.filename == str(tmp_path / name)
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_plain(tmp_path / "none")


def test_no_folder_is_walked_twice(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"")
    (tmp_path / "deep" / "round").symlink_to(tmp_path)
    assert list(walk(tmp_path)) == [
        (tmp_path, ["deep"], []),
        (tmp_path / "deep", ["round"], ["file"]),
        (tmp_path / "deep", [], ["round"]),
    ]


def test_links_to_other_folders_are_walked_and_names_can_be_left_out(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root / "skipped", other):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"")
    (root / "link").symlink_to(other)
    places = {}
    for folder, names, files in walk(root):
        names[:] = [name for name in names if name != "skipped"]
        places[folder] = files
    assert places == {root: [], root / "link": ["file"]}


def test_a_folder_that_cannot_be_listed_is_told(tmp_path):
    errors = []
    assert list(walk(tmp_path / "none", errors.append)) == []
    assert [type(error) for error in errors] == [FileNotFoundError]
