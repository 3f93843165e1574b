"""Say which exception ends a command with which exit code, and in which words: one table for every command.

The classes are looked up by name, once an exception has come: naming them here costs `pipeline --help` no import.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn

import typer


class WrongUse(ValueError):
    """A command was called with arguments that mean nothing, or name something that is not there."""


@dataclass(frozen=True)
class Kind:
    """A kind of ending: its exit code, and the field of Words that follows the message (none: the message says all)."""

    code: int
    words: str = ""


USE, LOSSES, STOPPED = Kind(2), Kind(3), Kind(130, "stopped")
SAID, FAILED, DAMAGED, DISK = Kind(1), Kind(1, "failed"), Kind(1, "damaged"), Kind(1, "disk")

KINDS: dict[str, Kind] = {
    "builtins.KeyboardInterrupt": STOPPED,
    "pipeline.stages.manifest.TooManyLosses": LOSSES,
    "pipeline.cli.errors.WrongUse": USE,
    "pipeline.serving.server.AddressError": USE,
    "pipeline.serving.drawing.EngineFailed": FAILED,
    "pipeline.recipes.schema.RecipeError": USE,
    "manifests.weights.WeightsError": USE,
    "manifests.roots.RootError": USE,
    "pipeline.report.render.ReportError": USE,
    "pipeline.execution.errors.RunFailed": FAILED,
    "manifests.publishing.RunOver": SAID,
    "manifests.store_requests.StoreError": FAILED,
    "manifests.transaction.TransactionError": SAID,
    "pipeline.analysis.why.NotFound": SAID,
    "pipeline.evaluation.ground_truth.TruthError": SAID,
    "pipeline.maintenance.remove.redact_run.UnsearchableFileError": SAID,
    "pipeline.execution.redaction.DamagedFileError": DAMAGED,
    "manifests.files.FormatError": DAMAGED,
    "manifests.manifest.ManifestError": DAMAGED,
    "manifests.shards.ShardError": DAMAGED,
    "tokenize_shards.samples.LoaderError": DAMAGED,
    "pyarrow.lib.ArrowException": DAMAGED,
    "_duckdb.OutOfMemoryException": SAID,
    "_duckdb.Error": DAMAGED,
    "builtins.OSError": DAMAGED,
}
"""Class -> how a command ends; the first entry that an exception is an instance of counts, as in a row of `except`.

What is not here is a fault of the program: it shows its traceback, and Python's exit code is 1.
"""
OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of the operating system that are no damage: the disk or its permissions are to be mended, not a file."""


@dataclass(frozen=True)
class Words:
    """What follows the message of each kind of ending: what stays, and how to go on."""

    stopped: str = ""
    failed: str = ""
    damaged: str = ""
    disk: str = ""


class Ending:
    """A context that turns an exception of KINDS into its message on stderr, without a traceback, and its exit code."""

    def __init__(self, words: Words) -> None:
        self.words = words

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, of: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise typer.Exit in place of an exception that KINDS knows; another one goes its way."""
        if error is not None and (kind := kind_of(error)) is not None:
            typer.echo(message(error, kind, self.words), err=True)
            raise typer.Exit(kind.code) from error


@contextmanager
def exit_codes(words: Words | None = None) -> Iterator[None]:
    """Let a command end with the exit code of KINDS and one message; Ctrl-C and SIGTERM are a KeyboardInterrupt.

    Stands over a command as a decorator, or around a block.
    """
    from pipeline.execution.hidden_imports import arrow_without_pandas
    from pipeline.execution.interrupts import interruptible

    arrow_without_pandas()
    with Ending(words or Words()), interruptible():
        yield


def kind_of(error: BaseException) -> Kind | None:
    """Return how an exception ends a command, or None for a fault of the program."""
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(error).__mro__}
    kind = next((kind for name, kind in KINDS.items() if name in names), None)
    return DISK if kind is DAMAGED and isinstance(error, OSError) and error.errno in OF_DISK else kind


def message(error: BaseException, kind: Kind, words: Words) -> str:
    """Return what is said of an exception: its own message, then what stays and how to go on.

    Of damage and of a disk the first line counts: DuckDB and Arrow quote whole statements below it.
    """
    follows = getattr(words, kind.words) if kind.words else ""
    if kind is STOPPED:
        return "\nstopped" + (f"; {follows}" if follows else "")
    lines = str(error).splitlines() or [type(error).__name__]
    says = lines[0] if kind in (DAMAGED, DISK) else "\n".join(lines)
    return f"error: {_in_the_run(says)}" + (f"; {follows}" if follows else "")


def _in_the_run(text: str) -> str:
    """Return a text that names the run's files where it names the links to them in a working copy."""
    from manifests.layered_path import NEW, REMOVING, REPAIRING

    copies = rf"{re.escape(REPAIRING)}[^/]+(/{NEW}(?=/))?|{re.escape(REMOVING)}/{NEW}(?=/)"
    return re.sub(rf"/({copies})", "", text)


def fail(text: str) -> NoReturn:
    """End the command with exit code 2: wrong use, said before any work."""
    raise WrongUse(text)
