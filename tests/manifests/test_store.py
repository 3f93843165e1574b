"""One set of promises for a disk and for an object store, the latter in memory."""

import secrets
from pathlib import Path

import pytest

from manifests.store import (
    Entry,
    create,
    drop,
    entries,
    is_remote,
    link,
    local_copy,
    open_file,
    path_of,
    rename,
    same_bytes,
    scan,
    scratch_of,
    store_of,
)


@pytest.fixture(params=["disk", "memory"])
def root(request, tmp_path):
    return tmp_path / "run" if request.param == "disk" else path_of(f"memory://{secrets.token_hex(4)}/run")


def put(path, data=b"x"):
    create(path, data)
    return path


def test_a_committed_file_is_there_whole_and_the_local_one_is_gone(root, tmp_path):
    (tmp_path / "made").write_bytes(b"data")
    root.mkdir(parents=True)
    store_of(root).commit(tmp_path / "made", root / "a.bin")
    assert (root / "a.bin").read_bytes() == b"data"
    assert not (tmp_path / "made").exists()


def test_of_two_that_create_a_file_one_succeeds(root):
    assert create(root / "claim", b"one")
    assert not create(root / "claim", b"two")
    assert (root / "claim").read_bytes() == b"one"


def test_a_listing_shows_files_alone_with_sizes_and_other_tags_after_a_change(root):
    put(root / "a", b"12")
    put(root / "deep" / "b", b"1")
    (first,) = entries(root)
    assert (first.name, first.size) == ("a", 2)
    (root / "a").unlink()
    put(root / "a", b"345")
    assert entries(root) != [first]
    assert entries(root / "nowhere") == []
    assert isinstance(first, Entry)


def test_renamed_linked_and_dropped(root):
    put(root / "a", b"1")
    rename(root / "a", root / "b")
    link(root / "b", root / "deep" / "c")
    assert not (root / "a").exists()
    assert (root / "deep" / "c").read_bytes() == b"1"
    drop(root / "deep")
    drop(root / "deep")
    assert not (root / "deep").exists()
    assert (root / "b").exists()


def test_files_are_opened_compared_and_copied_to_a_name_of_this_machine(root):
    put(root / "a", b"abc")
    put(root / "b", b"abc")
    put(root / "c", b"abd")
    with open_file(root / "a") as file:
        file.seek(1)
        assert file.read() == b"bc"
    assert same_bytes(root / "a", root / "b")
    assert not same_bytes(root / "a", root / "c")
    with local_copy(root / "a") as local:
        assert type(local) is type(Path())
        assert local.read_bytes() == b"abc"
    assert local.exists() != is_remote(root)
    with scan(root) as found:
        assert sorted(entry.name for entry in found) == ["a", "b", "c"]


def test_scratch_of_a_run_on_a_disk_is_the_run_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path))
    assert scratch_of(tmp_path / "run") == tmp_path / "run"
    one, other = scratch_of(path_of("memory://b/run")), scratch_of(path_of("memory://c/run"))
    assert one.parent == other.parent == tmp_path
    assert one != other
