"""A folder that is replaced whole or not at all."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.llamagen import output_folder
from pipeline.llamagen.output_folder import check_replaceable, put, replacing
from pipeline.recipes.schema import RecipeError
from tests.support.paths import ROOT

NOTE = "export.json"


def write(folder, name, text="{}"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_stood_there_goes_whole_when_the_new_one_is_whole(tmp_path):
    write(tmp_path / "out", NOTE)
    write(tmp_path / "out" / "codes", "0.npy", "old")
    with replacing(tmp_path / "out", NOTE) as staging:
        write(staging, NOTE, "new")
        assert names(tmp_path / "out") == ["codes/0.npy", NOTE]  # until the block ends
    assert names(tmp_path / "out") == [NOTE]
    assert (tmp_path / "out" / NOTE).read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_not_there_or_empty_is_made_with_its_parents(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        with replacing(folder, NOTE) as staging:
            assert staging.parent == folder.parent
            write(staging, "1.npy")
        assert names(folder) == ["1.npy"]


def test_a_relative_folder_lies_below_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with replacing(Path("out"), NOTE) as staging:
        monkeypatch.chdir("/")
        write(staging, "1.npy")
    assert names(tmp_path / "out") == ["1.npy"]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path):
    write(tmp_path / "out", NOTE, "old")

    def half():
        with replacing(tmp_path / "out", NOTE) as staging:
            write(staging, "half.npy")
            raise ValueError("stopped half-way")

    with pytest.raises(ValueError, match="stopped half-way"):
        half()
    assert (tmp_path / "out" / NOTE).read_text() == "old"
    assert names(tmp_path) == [f"out/{NOTE}"]


def test_folders_that_may_not_be_replaced_are_refused_before_any_work(tmp_path):
    write(tmp_path / "mine", "notes.txt")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "noted" / NOTE).mkdir(parents=True)  # a folder of the note's name is no note
    for name, says in (
        ("mine", rf"mine' holds files, and no {NOTE} that says that they may be replaced"),
        ("noted", "holds files"),
        ("file", "is a file, a link or a mount point"),
        ("link", "is a file, a link or a mount point"),
        ("dangling", "is a file, a link or a mount point"),
    ):
        with pytest.raises(RecipeError, match=says), replacing(tmp_path / name, NOTE):
            pytest.fail("the block ran")
    assert names(tmp_path / "mine") == ["notes.txt"]
    with pytest.raises(RecipeError, match="mount point"):
        check_replaceable(Path("/proc"), NOTE)


def test_a_killed_process_leaves_the_old_folder_and_the_next_one_sweeps(tmp_path):
    write(tmp_path / "out", NOTE, "old")
    code = f"""
import os, signal
from pathlib import Path
from pipeline.llamagen.output_folder import replacing
with replacing(Path({str(tmp_path / "out")!r}), {NOTE!r}) as staging:
    (staging / "half.npy").write_bytes(b"")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -signal.SIGKILL
    assert (tmp_path / "out" / NOTE).read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(tmp_path / "out", NOTE) as staging:
        assert sorted(tmp_path.iterdir()) == sorted([staging, tmp_path / "out"])


def test_leftovers_of_other_folders_and_of_processes_at_work_stay(tmp_path):
    dead, busy, other = (tmp_path / f".tmp-{name}" for name in ("00000001-out", "00000002-out", "00000003-an-out"))
    for folder in (dead, busy, other):
        write(folder, "1.npy")
    held = os.open(busy, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with replacing(tmp_path / "out", NOTE):
        assert not dead.exists()
    os.close(held)
    assert busy.is_dir()
    assert other.is_dir()
    with replacing(tmp_path / "out", "1.npy"):
        pass
    assert not busy.exists()


def test_every_file_is_on_disk_before_the_folder_stands_in_its_place(tmp_path, monkeypatch):
    """Files wait for the disk together, at the end: one by one 80,000 pictures took ten minutes."""
    waited = []
    monkeypatch.setattr(os, "fsync", lambda file: waited.append((os.readlink(f"/proc/self/fd/{file}"), out.exists())))
    out = tmp_path / "out"
    with replacing(out, "note.json") as folder:
        for name in ("note.json", "codes/00000/0.npy"):
            put(folder / name, name.encode())
        assert waited == []
    assert sorted((path.rpartition("/")[2], stood) for path, stood in waited) == [
        ("0.npy", False),
        ("note.json", False),
    ]
    assert (out / "codes" / "00000" / "0.npy").read_bytes() == b"codes/00000/0.npy"


def test_many_files_are_waited_for_at_once(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(output_folder, "FEW", 2)
    monkeypatch.setattr(os, "sync", lambda: waits.append((tmp_path / "out").exists()))
    monkeypatch.setattr(os, "fsync", lambda file: waits.append("one"))
    with replacing(tmp_path / "out", "note.json") as folder:
        for name in ("note.json", "a.npy", "b.npy"):
            put(folder / name, b"")
    assert waits == [False]
