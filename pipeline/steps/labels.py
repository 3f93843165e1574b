"""Look up what dedup says of a row over all rows: its cluster where it has twins, and its mark.

Both are files of numbers in order of uid, made from dedup's tables (clusters by twins.py), that workers map: a row
without twins and marks takes no room in them, and no process holds them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.survivors import halves
from filters.verdicts import MARKS, REMOVED, Numbers, flags
from manifests.files import open_table
from manifests.journal import records_of
from manifests.store import drop, is_remote, local_scratch, mapped, store_of
from manifests.tombstones import BY_TOMBSTONE

ROWS = 1 << 16
"""Rows of a table in hand."""
BY = 1 << 4
"""Bit of a mark's code: a tombstone made it, so that the row says nothing of itself any more."""
NO_MARK = -1
CLUSTERS, MARKED = "clusters", "marks"


@dataclass(frozen=True)
class Lookup:
    """Uids in order, as a column of first and one of second halves, and what stands beside each of them: (n, width)."""

    first: Numbers
    second: Numbers
    beside: Numbers

    def places(self, uids: pa.Array) -> Numbers:
        """Return the place of each of these uids, -1 where it is not there or null."""
        found = self.find(halves(uids))
        found[flags(pc.is_null(uids))] = -1
        return found

    def find(self, asked: Numbers) -> Numbers:
        """Return the place of each of these halves, (n, 2), -1 where it is not there."""
        at = np.searchsorted(self.first, asked[:, 0])
        found = np.full(len(asked), -1, np.int64)
        rest = np.flatnonzero(at < len(self.first))
        while len(rest):  # once, but where two uids share their first half
            rest = rest[self.first[at[rest]] == asked[rest, 0]]
            hit = self.second[at[rest]] == asked[rest, 1]
            found[rest[hit]] = at[rest[hit]]
            rest = rest[~hit]
            at[rest] += 1
            rest = rest[at[rest] < len(self.first)]
        return found


class LookupWriter:
    """Appends to the files of a Lookup; in an object store they are there once it is closed."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.local = folder, local_scratch(folder) if is_remote(folder) else folder
        self.paths = [self.local / f"{name}.{part}" for part in ("first", "second", "beside")]
        for path in self.paths:
            path.write_bytes(b"")

    def add(self, uids: Numbers, beside: Numbers) -> None:
        """Append uids, (n, 2) halves in order, and what stands beside them, (n, width) of 8 bytes."""
        for path, values in zip(self.paths, (uids[:, 0], uids[:, 1], beside), strict=True):
            with path.open("ab") as file:
                np.ascontiguousarray(values).tofile(file)

    def close(self) -> None:
        """Publish the files where they are not yet in their place."""
        if self.local != self.folder:
            for path in self.paths:
                store_of(self.folder).commit(path, self.folder / path.name)
            drop(self.local)


def open_lookup(folder: Path, name: str, width: int) -> Lookup:
    """Map the files of a Lookup."""
    first, second, beside = (_mapped(folder / f"{name}.{part}") for part in ("first", "second", "beside"))
    return Lookup(first, second, beside.reshape(-1, width))


def _mapped(path: Path) -> Numbers:
    path = mapped(path)
    return np.memmap(path, np.uint64, "r") if path.stat().st_size else np.empty(0, np.uint64)


def binary(uids: Numbers) -> pa.Array:
    """Return (n, 2) halves as uids, binary(16)."""
    raw = pa.py_buffer(np.ascontiguousarray(uids, dtype=">u8"))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(uids), [None, raw])


def write_marks(root: Path, folder: Path, removed: Numbers) -> None:
    """Write uid -> code of its first mark, from `ledger/marks.parquet` and the halves of uids that were `removed` when
    they were fetched. Held on the way: 17 bytes a mark. Raises FormatError, OSError."""
    found, codes = [removed], [np.full(len(removed), MARKS.index(REMOVED) | BY, np.int8)]
    for uids, code in _marks(root):
        found.append(uids)
        codes.append(code)
    uids, code = np.concatenate(found), np.concatenate(codes)
    order = np.lexsort((code & (BY - 1), uids[:, 1], uids[:, 0]))
    uids, code = uids[order], code[order]
    starts = np.flatnonzero(np.concatenate([[True] * min(len(uids), 1), np.any(uids[1:] != uids[:-1], axis=1)]))
    first = code[starts] | (np.bitwise_or.reduceat(code, starts) & BY if len(starts) else code)
    writer = LookupWriter(folder, MARKED)
    writer.add(uids[starts], first.astype(np.uint64))
    writer.close()


def _marks(root: Path) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield uids, as halves, and codes of dedup's marks."""
    paths = [root / file.path for record in records_of(root, "dedup") for file in record.files]
    for path in (path for path in paths if path.name == "marks.parquet"):
        with open_table(path) as file:
            for batch in file.iter_batches(ROWS, columns=["uid", "reason", "detail"]):
                code = pc.fill_null(pc.index_in(batch["reason"], value_set=pa.array(MARKS)), NO_MARK).to_numpy()
                by = flags(pc.fill_null(pc.starts_with(batch["detail"], BY_TOMBSTONE), False))
                known = (code >= 0) & flags(pc.is_valid(batch["uid"]))
                yield halves(batch["uid"])[known], (code | np.where(by, BY, 0)).astype(np.int8)[known]


@dataclass(frozen=True)
class Labels:
    """What `write_clusters` (twins.py) and `write_marks` left in a folder, for any worker."""

    folder: Path

    def clusters(self, uids: pa.Array) -> pa.Array:
        """Return the clusters of the rows of a shard that have twins, null for the others: binary(16)."""
        lookup = open_lookup(self.folder, CLUSTERS, 2)
        place = lookup.places(uids)
        return binary(lookup.beside[place[place >= 0]]).take(_among(place))

    def marks(self, uids: pa.Array) -> Numbers:
        """Return the code of the mark of each row, int8, NO_MARK where it has none or its uid is null."""
        lookup = open_lookup(self.folder, MARKED, 1)
        place = lookup.places(uids)
        code = np.full(len(place), NO_MARK, np.int8)
        code[place >= 0] = lookup.beside[place[place >= 0], 0]
        return code


def _among(place: Numbers) -> pa.Array:
    """Return for each place that was found its number among those, null for the others."""
    found = place >= 0
    return pa.array(np.cumsum(found) - 1, mask=~found)


def mark_names(code: Numbers) -> pa.Array:
    """Return the marks of codes, null where there is none."""
    return pa.array(MARKS, pa.string()).take(pa.array(code & (BY - 1), mask=code < 0))


def by_tombstone(code: Numbers) -> Numbers:
    """Tell of each code whether a tombstone made it."""
    by: Numbers = (code >= 0) & (code & BY > 0)
    return by
