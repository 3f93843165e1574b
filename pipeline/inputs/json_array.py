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
    what comes behind cannot be told apart."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    text, at, more = "", 0, True
    started = ended = False
    while True:
        found = _next(text, at, started)
        if found is None and more and len(text) - at <= MAX_LINE:
            block = file.read(max(BLOCK, len(text) - at))  # as much again: an element is decoded few times
            more = bool(block)
            text, at = text[at:] + decode(block, not more), 0
            text = text if started else text.lstrip(MARK)
            continue
        if found is None:
            if not ended or text[at:].strip(BLANK):
                yield None
            return
        element, at = found
        if element is not START and element is not END:
            yield element
        started, ended = element is not END, element is END


END, START = object(), object()


def _next(text: str, at: int, started: bool) -> tuple[Any, int] | None:
    """Return (the next element or END or START, the place behind it), None where the text does not hold it whole."""
    at = _behind_blank(text, at)
    if not started:
        return (START, at + 1) if text[at : at + 1] == "[" else None
    if text[at : at + 1] == ",":
        at = _behind_blank(text, at + 1)
    if text[at : at + 1] == "]":
        return END, at + 1
    try:
        element, stop = DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    rest = _behind_blank(text, stop)
    return (element, stop) if text[rest : rest + 1] in (",", "]") and rest < len(text) else None


def _behind_blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in BLANK:
        at += 1
    return at
