"""Put the samples of one window in their order: which shard and row each is, and where its members lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.loading.joins import Beside, Join
from pipeline.loading.order import Numbers, Whole, draws
from pipeline.loading.selection import Selection
from tokenize_shards.packed_index import MEMBERS, PackedIndex, Place


@dataclass(frozen=True)
class Window:
    """The samples of some shards in the order that an epoch reads them: N samples."""

    shard_N: Whole
    """Number of the shard that each lies in."""
    row_N: Whole
    """Its place in that shard."""
    uid_N2: Numbers
    places: dict[str, Place]
    beside: Beside | None = None
    """What other tables have of the samples."""

    def __len__(self) -> int:
        return len(self.shard_N)


@dataclass(frozen=True)
class Source:
    """Where a window's samples come from: an index, which of its samples are read, and what other tables have of
    them."""

    index: PackedIndex
    selection: Selection
    join: Join | None = None


def open_window(source: Source, numbers: Sequence[int], words: tuple[object, ...]) -> Window:
    """Return the selected samples of these shards, mixed: in the order of their draws under `words`.

    Holds 90 bytes a sample. Raises FormatError, OSError.
    """
    chosen, shards, rows_of = [], [], []
    for number, rows in zip(numbers, source.index.all_rows(numbers), strict=True):
        row_N = np.flatnonzero(source.selection.of(number, rows.uid_N2))
        chosen.append((rows, row_N))
        shards.append(np.full(len(row_N), number, np.int64))
        rows_of.append(row_N.astype(np.int64))
    uid_N2 = np.concatenate([rows.uid_N2[row_N] for rows, row_N in chosen])
    order_N = np.lexsort((uid_N2[:, 1], uid_N2[:, 0], draws(uid_N2, "sample", *words)))

    def joined(member: str, what: str) -> Numbers:
        whole: Numbers = np.concatenate([getattr(rows.places[member], what)[row_N] for rows, row_N in chosen])
        return whole[order_N]

    places = {
        member: Place(joined(member, "offset_N"), joined(member, "length_N"), joined(member, "crc32_N"))
        for member in MEMBERS
    }
    shard_N, row_N = np.concatenate(shards)[order_N], np.concatenate(rows_of)[order_N]
    beside = source.join.beside(numbers, shard_N, row_N) if source.join else None
    return Window(shard_N, row_N, uid_N2[order_N], places, beside)
