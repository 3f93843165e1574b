"""Choose one survivor per cluster of near duplicates."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.verdicts import Numbers


@dataclass(frozen=True)
class Candidates:
    """Rows that pass, bear no mark and have twins. cluster, uid: (n, 2) halves; aesthetic: NaN, pixels: -1 where
    unknown."""

    cluster: Numbers
    uid: Numbers
    rank: Numbers
    aesthetic: Numbers
    pixels: Numbers

    @classmethod
    def of(cls, batch: pa.RecordBatch | pa.Table, rank: Numbers) -> "Candidates":
        """Take the columns cluster, uid, width, height and the aesthetic scores that there are."""
        scores = [batch[name] for name in ("aesthetic_v2", "aesthetic_v1") if name in batch.schema.names]
        best = numbers(pc.coalesce(*scores), np.float32) if scores else np.full(batch.num_rows, np.nan, np.float32)
        pixels = pc.fill_null(pc.multiply(batch["width"].cast(pa.int64()), batch["height"].cast(pa.int64())), -1)
        return cls(halves(batch["cluster"]), halves(batch["uid"]), rank, best, numbers(pixels, np.int64))

    def losers(self) -> Numbers:
        """Return true for every row that is not the best of its cluster by (tier, aesthetic, pixels, smallest uid)."""
        lost = np.ones(len(self.rank), bool)
        if not len(lost):
            return lost
        unknown = np.isnan(self.aesthetic)
        worth = np.where(unknown, 0, -self.aesthetic)
        keys = (
            self.uid[:, 1],
            self.uid[:, 0],
            -self.pixels,
            worth,
            unknown,
            -self.rank,
            self.cluster[:, 1],
            self.cluster[:, 0],
        )
        order = np.lexsort(keys)
        sorted_clusters = self.cluster[order]
        first = np.concatenate([[True], np.any(sorted_clusters[1:] != sorted_clusters[:-1], axis=1)])
        lost[order[first]] = False
        return lost


def numbers(array: pa.Array | pa.ChunkedArray, kind: Any) -> Numbers:
    """Return an Arrow array of numbers in numpy; a null of floats is NaN."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    made: Numbers = np.asarray(whole.to_numpy(zero_copy_only=False), dtype=kind)
    return made


def halves(array: pa.Array | pa.ChunkedArray) -> Numbers:
    """Return 16-byte values as (n, 2) unsigned halves that sort as the bytes do; a null's halves are undefined."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    fixed = whole if pa.types.is_fixed_size_binary(whole.type) else whole.cast(pa.binary(16))
    raw = np.frombuffer(fixed.buffers()[1] or b"", dtype=">u8")[: 2 * (fixed.offset + len(fixed))]
    made: Numbers = raw.reshape(-1, 2)[fixed.offset :].astype(np.uint64)
    return made
