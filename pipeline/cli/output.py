"""What commands print: the result alone on stdout, as lines or as one JSON document; everything else on stderr."""

import errno
import json
import os
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]


def result(as_json: bool, document: Any, lines: Iterable[str]) -> None:
    """Print a command's result on stdout: the document as JSON, or its lines."""
    put(as_text(document) if as_json else "\n".join(lines))


def as_text(document: Any) -> str:
    """Return a document as JSON on one line of ASCII: keys in the order of the code, bytes as hex, paths as text.

    A file's name that is no UTF-8 keeps its bytes as lone surrogates, escaped.
    """
    return json.dumps(document, default=_plain)


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def put(text: str) -> None:
    """Print on stdout. A reader that went away (`| head`) is no fault: the command ends as it would have. Raises
    OSError where stdout is closed or full."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed: the result has no place to go")
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends


def note(text: str) -> None:
    """Print a line on stderr: what is worth knowing beside the result."""
    print(text, file=sys.stderr, flush=True)


def shown(line: str) -> str:
    """Return a line with escapes where a file's name holds line breaks, control characters or bytes that are no
    UTF-8."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
