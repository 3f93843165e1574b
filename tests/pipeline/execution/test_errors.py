"""pipeline/execution/errors.py: a full disk, wherever it shows, ends a run with a sentence that says how to go on."""

import errno

import duckdb
import pytest

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
    with pytest.raises(RunFailed) as raised, clear_errors():
        raise error
    assert str(raised.value).startswith(f"no room left to write ({error}); make room and run the same command again")
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied"), duckdb.BinderException("no such column"), KeyError(1)]
)
def test_any_other_error_goes_through_as_it_is(error):
    with pytest.raises(type(error)) as raised, clear_errors():
        raise error
    assert raised.value is error


def test_a_block_without_an_error_ends_quietly():
    with clear_errors():
        value = 3
    assert value == 3
