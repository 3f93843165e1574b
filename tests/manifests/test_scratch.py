"""The local folder of runs in a store: what is wrong with it is one sentence, and what nobody needs any more goes."""

import os
import secrets
import subprocess
import sys
import time

import pytest

from manifests.roots import RootError, check_root, root_of
from manifests.scratch import base, check_scratch, drop_copies, room_in, sweep_scratch
from manifests.store import mapped, path_of, scratch_of
from manifests.store_requests import StoreError
from manifests.working_copy import working_copy

REMEDY = "wanted a folder of one's own that can be written to: set TESSERA_SCRATCH"


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture
def root():
    return path_of(f"memory://{secrets.token_hex(4)}/run")


def refused(root):
    with pytest.raises(StoreError) as caught:
        check_scratch()
    with pytest.raises(RootError) as said:
        check_root(root)
    assert str(said.value) == str(caught.value)
    assert list(root.rglob("*")) == []
    return str(said.value)


def test_a_file_in_its_place_is_said_before_the_store_is_asked(scratch, root):
    scratch.touch()
    assert refused(root) == f"TESSERA_SCRATCH ({scratch}): is no folder; {REMEDY}"


def test_one_that_cannot_be_made(scratch, root, monkeypatch):
    scratch.touch()
    monkeypatch.setenv("TESSERA_SCRATCH", str(scratch / "below"))
    assert refused(root) == f"TESSERA_SCRATCH ({scratch}/below): cannot be made (Not a directory); {REMEDY}"


def test_one_that_cannot_be_written_to(scratch, root, monkeypatch):
    def fail(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("manifests.scratch.tempfile.NamedTemporaryFile", fail)
    assert refused(root) == f"TESSERA_SCRATCH ({scratch}): cannot be written to (Permission denied); {REMEDY}"


def test_one_of_another_user(scratch, root, monkeypatch):
    monkeypatch.setattr("manifests.scratch.os.getuid", lambda: 12345)
    assert "belongs to another user" in refused(root)


def test_a_folder_that_is_well_is_made_and_left_empty(scratch, root):
    check_root(root)
    assert list(scratch.iterdir()) == []
    assert room_in(root) == f" in TESSERA_SCRATCH ({scratch})"


def test_a_run_on_a_disk_needs_none(scratch, tmp_path):
    scratch.touch()
    check_root(root_of(str(tmp_path)))
    assert room_in(tmp_path) == ""
    drop_copies(tmp_path)


def test_what_a_killed_repair_left_here_is_swept_and_no_other_runs(scratch, root):
    other = path_of(f"memory://{secrets.token_hex(4)}/run")
    left = []
    for run in (root, other):
        with working_copy(run, ()) as copy:
            left.append(scratch_of(copy) / "logs" / "workers")
            assert scratch_of(path_of(str(copy))) == scratch_of(copy)
        left[-1].mkdir(parents=True)  # as if the block had not come to its end
        (scratch_of(run) / "logs").mkdir()
    sweep_scratch(root)
    assert [path.exists() for path in left] == [False, True]
    assert (scratch_of(root) / "logs").is_dir()


def test_what_processes_that_have_ended_had_on_their_way_is_swept(scratch, root):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for pid in (child.pid, os.getpid()):
        (base() / f"upload-{pid}-folder").mkdir()
        (base() / f"upload-{pid}-file").touch()
    sweep_scratch(root)
    assert sorted(path.name for path in scratch.iterdir()) == [f"upload-{os.getpid()}-{x}" for x in ("file", "folder")]


def test_copies_go_with_a_removal_in_their_run_and_a_day_after_their_last_use(scratch, root):
    other = path_of(f"memory://{secrets.token_hex(4)}/run")
    copies = []
    for run in (root, other):
        (run / "deep").mkdir()
        (run / "deep" / "a.npy").write_bytes(b"data")
        copies.append(mapped(run / "deep" / "a.npy"))
        assert mapped(run / "deep" / "a.npy") == copies[-1]
        assert copies[-1].read_bytes() == b"data"
    drop_copies(root)
    assert [copy.exists() for copy in copies] == [False, True]
    sweep_scratch(root)
    assert copies[1].exists()
    for path in (copies[1], *copies[1].parents):
        if path != scratch and scratch in path.parents:
            os.utime(path, (time.time() - 90_000,) * 2)
    sweep_scratch(root)
    assert not copies[1].exists()
    assert mapped(other / "deep" / "a.npy").read_bytes() == b"data"
