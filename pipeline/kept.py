"""Find the kept rows of a tier and their pictures, shard by shard of pairs."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.fetch.images import ImageFault, ImageLimits, open_picture
from manifests.manifest import FileRecord, ShardRecord
from manifests.schema import schema
from manifests.shards import read_shard
from pipeline.plans import connect, files_sql
from pipeline.steps import Unit, records_of

if TYPE_CHECKING:
    from PIL.Image import Image

Row = dict[str, Any]


def kept_by_shard(root: Path, tiers: list[str]) -> Iterator[tuple[str, pa.Table]]:
    """Yield (shard of pairs, table of uid) of the kept rows of any of these tiers, by shard and uid."""
    finals = [root / file.path for record in records_of(root, "decide") for file in record.files]
    if not finals or not tiers:
        return
    with connect(root) as connection:
        query = f"SELECT shard, uid FROM {files_sql(finals)} WHERE fate = 'kept' AND list_has_any(tiers, ?) ORDER BY shard, uid"
        table = connection.execute(query, [tiers]).to_arrow_table()
    for shard in table["shard"].unique().to_pylist():
        mask = pc.equal(table["shard"], shard)
        yield shard, pa.table([table["uid"].filter(mask).cast(pa.binary(16)).combine_chunks()], schema=schema("uid"))


def pair_jpegs(path: Path, wanted: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (uid, JPEG) of the wanted pairs of a shard, in its order."""
    for key, sample in read_shard(path):
        uid = bytes.fromhex(key)
        if uid in wanted:
            yield uid, sample["jpg"]


def shard_contents(root: Path) -> dict[str, str]:
    """Return shard of pairs -> digest of its files."""
    return {record.shard: record.content for record in records_of(root, "fetch")}


def fresh(jpegs: Iterator[tuple[bytes, bytes]], earlier: dict[bytes, Row], rows: dict[bytes, Row]) -> Iterator[tuple[bytes, bytes]]:
    """Pass on the pictures that have no earlier row of the same bytes; the others' rows are carried over."""
    for uid, jpeg in jpegs:
        before = earlier.get(uid)
        if before and before["sha256"] == hashlib.sha256(jpeg).digest():
            rows[uid] = {name: value for name, value in before.items() if name != "file"}
        else:
            yield uid, jpeg


class Decoders:
    """Processes that decode pictures for a worker, started when first asked; none, and the worker decodes them itself.

    A picture that kills its decoder is decoded again by the worker, so that the death is charged to the rows in hand.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def opened(self, jpegs: list[bytes], max_pixels: int) -> Iterator[Any]:
        """Yield a picture as RGB array (H, W, 3) uint8, or the reason why there is none, in order."""
        if self.count and self._pool is None:
            self._pool = ProcessPoolExecutor(self.count, mp_context=get_context("spawn"))
        try:
            if self._pool is not None:
                each = max(1, len(jpegs) // (4 * self.count))
                yield from list(self._pool.map(_opened, jpegs, repeat(max_pixels), chunksize=each))
                return
        except BrokenProcessPool:
            self.close()
        yield from (_opened(jpeg, max_pixels) for jpeg in jpegs)

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _opened(jpeg: bytes, max_pixels: int) -> Any:
    try:
        return np.asarray(open_picture(jpeg, ImageLimits(max_pixels=max_pixels)))
    except ImageFault as fault:
        return fault.reason


IN_WORKER = Decoders(0)


def decode(
    pairs: list[tuple[bytes, bytes]], rows: dict[bytes, Row], max_pixels: int, decoders: Decoders = IN_WORKER, **facts: Any
) -> "list[tuple[bytes, Image]]":
    """Return (uid, RGB picture) of the JPEGs that open; every pair gets its row, with a reason where it does not."""
    from PIL import Image

    images = []
    for (uid, jpeg), found in zip(pairs, decoders.opened([jpeg for _, jpeg in pairs], max_pixels), strict=True):
        rows[uid] = {"uid": uid, "sha256": hashlib.sha256(jpeg).digest(), "reason": found if isinstance(found, str) else None, **facts}
        if not isinstance(found, str):
            images.append((uid, Image.fromarray(found)))
    return images


def record_of(root: Path, unit: Unit, path: Path, rows: list[Row]) -> ShardRecord:
    """Return the record of a written sidecar: rows with a reason are dropped."""
    dropped = Counter(row["reason"] for row in rows if row.get("reason"))
    kept = len(rows) - dropped.total()
    return ShardRecord(unit.name, unit.key, (FileRecord.of(root, path),), len(rows), kept, dict(sorted(dropped.items())))
