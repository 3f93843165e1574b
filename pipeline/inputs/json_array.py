"""Read the elements of JSON arrays, however long it is, holding one of them at a time."""

import codecs
from collections.abc import Iterator
from typing import IO, Any

from pipeline.inputs.coerce import MARK
from pipeline.inputs.jsonl import DECODER, MAX_LINE

BLOCK = 1 << 20
BLANK = " \t\r\n"


def elements(file: IO[bytes]) -> Iterator[Any]:
    """Yield the elements in order, those of further arrays behind the first too; one None at the end where an array
    breaks off, holds what is no JSON, or an element of more than MAX_LINE characters, or where something else follows:
    what comes behind cannot be told apart. An element with NULs in it is None, and so are NULs that stand between two.
    """
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    text, at, more = "", 0, True
    bare = text
    started = ended = False
    while True:
        found = _next(bare, at, started)
        if found is None and more and len(text) - at <= MAX_LINE:
            block = file.read(max(BLOCK, len(text) - at))  # as much again: an element is decoded few times
            more = bool(block)
            text, at = text[at:] + decode(block, not more), 0
            text = text if started else text.lstrip(MARK)
            bare = text.replace("\0", " ")  # as many characters: places stay
            continue
        if found is None:
            if not ended or text[at:].strip(BLANK):
                yield None
            return
        element, start, stop = found
        if "\0" in text[at:start]:
            yield None
        if element is not START and element is not END:
            yield None if "\0" in text[start:stop] else element
        at = stop
        started, ended = element is not END, element is END


END, START = object(), object()


def _next(text: str, at: int, started: bool) -> tuple[Any, int, int] | None:
    """Return (the next element or END or START, where it begins, the place behind it), None where the text does not
    hold it whole."""
    at = _behind_blank(text, at)
    if not started:
        return (START, at, at + 1) if text[at : at + 1] == "[" else None
    if text[at : at + 1] == ",":
        at = _behind_blank(text, at + 1)
    if text[at : at + 1] == "]":
        return END, at, at + 1
    try:
        element, stop = DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    rest = _behind_blank(text, stop)
    return (element, at, stop) if text[rest : rest + 1] in (",", "]") and rest < len(text) else None


def _behind_blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in BLANK:
        at += 1
    return at
