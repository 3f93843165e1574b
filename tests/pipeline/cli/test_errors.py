"""How commands end: pipeline/cli/errors.py: which exception is which exit code, in which words."""

import errno
import importlib
import os
import re
import signal
import tarfile

import duckdb
import pyarrow as pa
import pytest
import typer

from manifests.extras import MissingExtra
from manifests.files import FormatError, SealError
from manifests.transaction import TransactionError
from pipeline.analysis.why import NotFound
from pipeline.cli.errors import DAMAGED, DISK, FAILED, KINDS, SAID, USE, Words, exit_codes, fail, kind_of, message
from pipeline.execution.errors import RunFailed
from pipeline.maintenance.remove.redact_run import UnsearchableFileError
from pipeline.recipes.schema import RecipeError
from pipeline.stages.manifest import TooManyLosses
from tests.support.paths import ROOT


def ending(error, words=None):
    """Return the exit code of a command that raises `error`."""
    with pytest.raises(typer.Exit) as end, exit_codes(words):
        raise error
    return end.value.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (TooManyLosses("lost 3 of 4 files"), 3),
        (RecipeError("bad"), 2),
        (MissingExtra("no package"), 2),
        (RunFailed("no room"), 1),
        (NotFound("no row"), 1),
        (FormatError("no table"), 1),
        (SealError("changed"), 1),
        (pa.ArrowInvalid("no Parquet"), 1),
        (duckdb.IOException("no file"), 1),
        (FileNotFoundError(2, "No such file", "x"), 1),
        (OSError(errno.ENOSPC, "No space left"), 1),
    ],
)
def test_each_exception_has_its_exit_code_and_no_traceback(error, code, capsys):
    assert ending(error) == code
    out, err = capsys.readouterr()
    assert (out, "Traceback" in err) == ("", False)


@pytest.mark.parametrize("error", [KeyError("a"), ValueError("b"), AssertionError("c"), tarfile.ReadError("d")])
def test_a_fault_of_the_program_keeps_its_traceback(error):
    with pytest.raises(type(error)) as came, exit_codes():
        raise error
    assert came.value is error


def test_nothing_raised_is_nothing_changed_and_an_exit_goes_through():
    with exit_codes():
        pass
    with pytest.raises(typer.Exit) as end, exit_codes():
        raise typer.Exit(7)
    assert end.value.exit_code == 7


def test_sigterm_ends_like_ctrl_c(capsys):
    with pytest.raises(typer.Exit) as end, exit_codes(Words("all is well")):
        os.kill(os.getpid(), signal.SIGTERM)
    assert (end.value.exit_code, capsys.readouterr().err) == (130, "\nstopped; all is well\n")


def test_it_stands_over_a_command_whose_parameters_stay_as_they_are(capsys):
    @exit_codes()
    def command(number: int) -> int:
        return fail("no number") if number < 0 else number

    assert command(3) == 3
    with pytest.raises(typer.Exit):
        command(-1)
    assert capsys.readouterr().err == "error: no number\n"
    assert command.__wrapped__.__annotations__["number"] is int


def test_the_first_row_that_fits_counts():
    assert kind_of(FormatError("x")) is DAMAGED
    assert kind_of(UnsearchableFileError("a DamagedFileError that no repair mends")) is SAID
    assert kind_of(PermissionError(errno.EACCES, "Permission denied")) is DISK
    assert kind_of(IsADirectoryError(errno.EISDIR, "Is a directory")) is DAMAGED
    assert kind_of(RecipeError("x")) is USE
    assert kind_of(LookupError("x")) is None


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (RunFailed("no worker"), FAILED, "error: no worker; F"),
        (TransactionError("half"), SAID, "error: half"),
        (RecipeError("two\nlines"), USE, "error: two\nlines"),
        (FormatError("bad\nLINE 1: SELECT"), DAMAGED, "error: bad; D"),
        (FormatError(""), DAMAGED, "error: FormatError; D"),
        (OSError(errno.EFBIG, "File too large"), DISK, "error: [Errno 27] File too large; M"),
        (FormatError("run/.tmp-repair-a1b2/codes/x.tar: cut"), DAMAGED, "error: run/codes/x.tar: cut; D"),
    ],
)
def test_the_message_says_what_came_then_how_to_go_on(error, kind, says):
    assert message(error, kind, Words("S", "F", "D", "M")) == says


def test_stopped_is_no_error():
    assert message(KeyboardInterrupt(), KINDS["builtins.KeyboardInterrupt"], Words()) == "\nstopped"


def test_every_name_of_the_table_is_a_class_that_an_exception_of_it_is_found_by():
    for name, kind in KINDS.items():
        module, _, name_of_class = name.rpartition(".")
        error_class = getattr(importlib.import_module(module), name_of_class)
        assert issubclass(error_class, BaseException), name
        assert kind_of(error_class.__new__(error_class)) is kind, name


def test_the_docs_have_the_same_table():
    section = (ROOT / "docs" / "entry-points.md").read_text().partition("| exception | code |")[2]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", section, re.MULTILINE)
    assert rows == [(name.rpartition(".")[2], str(kind.code)) for name, kind in KINDS.items()]
    assert rows[0] == ("KeyboardInterrupt", "130")
