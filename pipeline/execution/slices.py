"""Cut rows by part, and keep them in files of slices: one slice a part, each read without the others."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import pyarrow as pa

from manifests.files import FormatError, parsing
from manifests.store import open_sparse

HELD_BYTES = 64_000_000
"""Bytes of rows that are held before they are written."""
MAGIC = b"TESSLICE"
Parts = np.ndarray[Any, np.dtype[np.integer[Any]]]
"""The part of each row, 0 … parts - 1, (N,)."""
Piece = tuple[Parts, pa.RecordBatch]


def by_part(numbers: Parts, rows: pa.RecordBatch, parts: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (part, its rows, in the order in which they stand) of each part that has any, in order."""
    small = numbers.astype(np.uint16 if parts <= 1 << 16 else np.int64)  # numpy sorts 16 bits by digits
    ends = np.cumsum(np.bincount(small, minlength=parts))
    if len(ends) > parts:
        raise AssertionError(f"a row of part {len(ends) - 1}: wanted 0 … {parts - 1}")
    ordered = rows.take(pa.array(np.argsort(small, kind="stable")))
    start = 0
    for part, end in enumerate(ends.tolist()):
        if end > start:
            yield part, ordered.slice(start, end - start)
        start = end


def together(pieces: Iterable[Piece], schema: pa.Schema, most: int = HELD_BYTES) -> Iterator[Piece]:
    """Put pieces together until they hold more than `most` bytes: cut by part, they make a few large slices."""
    waiting: list[Piece] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += piece[1].nbytes
        if held > most:
            yield from _joined(waiting, schema)
            held = 0
    yield from _joined(waiting, schema)


def _joined(waiting: list[Piece], schema: pa.Schema) -> Iterator[Piece]:
    """Yield pieces as one, none where they have no rows, and let go of them."""
    rows = pa.Table.from_batches([rows for _, rows in waiting], schema).combine_chunks().to_batches()
    numbers = [numbers for numbers, _ in waiting]
    waiting.clear()
    yield from ((np.concatenate(numbers), batch) for batch in rows)


def write_slices(file: BinaryIO, parts: int, schema: pa.Schema, pieces: Iterable[Piece], most: int = HELD_BYTES) -> int:
    """Write rows as slices: Arrow messages without a schema, and where each part's begin and end; return the rows.

    A run of slices for every `most` bytes of rows: run r's slice of part p lies at offsets[r, p] … offsets[r, p + 1].
    The file ends with the offsets (runs, parts + 1) and the numbers of both, int64, and MAGIC.
    """
    runs: list[list[int]] = []
    written = 0
    for numbers, rows in together(pieces, schema, most):
        offsets = [file.tell()] * (parts + 1)
        for part, own in by_part(numbers, rows, parts):
            offsets[part] = file.tell()
            file.write(own.serialize())
            offsets[part + 1] = file.tell()
        runs.append(np.maximum.accumulate(np.array(offsets)).tolist())
        written += rows.num_rows
    file.write(np.array(runs, "<i8").tobytes() + np.array([len(runs), parts], "<i8").tobytes() + MAGIC)
    return written


def read_slice(path: Path, part: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches of one part from a file of slices. Raises FormatError for another file, OSError."""
    with open_sparse(path) as file, parsing(path, "not a file of slices"):
        end, runs, parts = _sizes(path, file)
        if not 0 <= part < parts:
            raise FormatError(f"{path}: no slice {part}")
        table = end - 8 * runs * (parts + 1)
        for run in range(runs):
            file.seek(table + 8 * (run * (parts + 1) + part))
            first, last = np.frombuffer(file.read(16), "<i8").tolist()
            if last > first:
                file.seek(first)
                yield pa.ipc.read_record_batch(pa.py_buffer(file.read(last - first)), schema)


def parts_in(path: Path) -> int:
    """Return how many parts a file of slices has. Raises FormatError for another file, OSError."""
    with open_sparse(path) as file, parsing(path, "not a file of slices"):
        return _sizes(path, file)[2]


def _sizes(path: Path, file: IO[bytes]) -> tuple[int, int, int]:
    """Return where the slices' offsets end, and how many runs and parts there are."""
    end = max(0, file.seek(0, 2) - len(MAGIC) - 16)
    file.seek(end)
    runs, parts = np.frombuffer(file.read(16).ljust(16), "<i8").tolist()
    if file.read() != MAGIC:
        raise FormatError(f"{path}: not a file of slices")
    return end, runs, parts
