"""What commands print: the result alone on stdout, as lines or as one JSON document; everything else on stderr."""

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
    """Return a document as JSON on one line: keys in the order of the code, bytes as hex, paths as text."""
    return json.dumps(document, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def put(text: str) -> None:
    """Print on stdout. A reader that went away (`| head`) ends the command with exit code 0."""
    try:
        print(text, flush=True)
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
        raise typer.Exit(0) from error


def note(text: str) -> None:
    """Print a line on stderr: what is worth knowing beside the result."""
    print(text, file=sys.stderr, flush=True)


def shown(line: str) -> str:
    """Return a line with escapes where a file's name holds line breaks, control characters or bytes that are no
    UTF-8."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
