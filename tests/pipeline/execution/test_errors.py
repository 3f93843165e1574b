"""pipeline/execution/errors.py: a full disk, wherever it shows, ends a run with a sentence that says how to go on."""

import errno
from pathlib import Path

import duckdb
import pytest

from manifests.store import path_of
from pipeline.execution.errors import RunFailed, clear_errors


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/run/out"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        duckdb.IOException('Could not write file "x": No space left on device'),
    ],
)
def test_a_full_disk_says_how_to_go_on(error):
    with pytest.raises(RunFailed) as raised, clear_errors(Path("run")):
        raise error
    assert str(raised.value).startswith(f"no room left to write ({error}); make room and run the same command again")
    assert raised.value.__cause__ is error


def test_a_full_local_folder_of_a_run_in_a_store_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path))
    with pytest.raises(RunFailed) as raised, clear_errors(path_of("memory://b/run")):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(raised.value).startswith(f"no room left to write in TESSERA_SCRATCH ({tmp_path}) ([Errno 28]")


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied"), duckdb.BinderException("no such column"), KeyError(1)]
)
def test_any_other_error_goes_through_as_it_is(error):
    with pytest.raises(type(error)) as raised, clear_errors(Path("run")):
        raise error
    assert raised.value is error


def test_a_block_without_an_error_ends_quietly():
    with clear_errors(Path("run")):
        value = 3
    assert value == 3
