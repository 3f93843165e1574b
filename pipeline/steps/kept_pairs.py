"""Find the kept rows of a tier and their pictures, shard by shard of pairs."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.images.decode import ImageFault, ImageLimits, open_picture
from manifests.journal import FileRecord, ShardRecord, records_of
from manifests.query import connect, files_sql
from manifests.schema import schema
from manifests.shards import read_shard
from pipeline.execution.decode_pool import Opening, Pair
from pipeline.execution.step import Unit

if TYPE_CHECKING:
    from PIL.Image import Image

Row = dict[str, Any]


def kept_by_shard(root: Path, tiers: list[str]) -> Iterator[tuple[str, pa.Table]]:
    """Yield (shard of pairs, table of uid) of the kept rows of any of these tiers, by shard and uid."""
    finals = [root / file.path for record in records_of(root, "decide") for file in record.files]
    if not finals or not tiers:
        return
    with connect(root) as connection:
        query = (
            f"SELECT shard, uid FROM {files_sql(finals)} WHERE fate = 'kept' AND list_has_any(tiers, ?) ORDER BY"
            " shard, uid"
        )
        table = connection.execute(query, [tiers]).to_arrow_table()
    runs = pc.run_end_encode(table["shard"].combine_chunks())
    start = 0
    for shard, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        yield (
            shard,
            pa.table(
                [table["uid"].slice(start, end - start).cast(pa.binary(16)).combine_chunks()], schema=schema("uid")
            ),
        )
        start = end


def pair_jpegs(path: Path, wanted: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (uid, JPEG) of the wanted pairs of a shard, in its order."""
    for key, sample in read_shard(path):
        uid = bytes.fromhex(key)
        if uid in wanted:
            yield uid, sample["jpg"]


def shard_contents(root: Path) -> dict[str, str]:
    """Return shard of pairs -> digest of its files."""
    return {record.shard: record.content for record in records_of(root, "fetch")}


def fresh(
    jpegs: Iterator[tuple[bytes, bytes]], earlier: dict[bytes, Row], rows: dict[bytes, Row]
) -> Iterator[tuple[bytes, bytes]]:
    """Pass on the pictures that have no earlier row of the same bytes; the others' rows are carried over."""
    for uid, jpeg in jpegs:
        before = earlier.get(uid)
        if before and before["sha256"] == hashlib.sha256(jpeg).digest():
            rows[uid] = {name: value for name, value in before.items() if name != "file"}
        else:
            yield uid, jpeg


def opened(jpeg: bytes, max_pixels: int) -> Any:
    """Return the picture as RGB array (H, W, 3) uint8, or the reason why there is none."""
    try:
        return np.asarray(open_picture(jpeg, ImageLimits(max_pixels=max_pixels)))
    except ImageFault as fault:
        return fault.reason


def decode(
    pairs: list[Pair], rows: dict[bytes, Row], max_pixels: int, opening: Opening | None = None, **facts: Any
) -> "list[tuple[bytes, Image]]":
    """Return (uid, RGB picture) of the JPEGs that open; every pair gets its row, with a reason where it does not.

    `opening` is what `Decoders` has begun for these pairs; without it they are decoded here.
    """
    from PIL import Image

    images = []
    found_all = opening() if opening else [opened(jpeg, max_pixels) for _, jpeg in pairs]
    for (uid, jpeg), found in zip(pairs, found_all, strict=True):
        rows[uid] = {
            "uid": uid,
            "sha256": hashlib.sha256(jpeg).digest(),
            "reason": found if isinstance(found, str) else None,
            **facts,
        }
        if not isinstance(found, str):
            images.append((uid, Image.fromarray(found)))
    return images


def record_of(root: Path, unit: Unit, path: Path, rows: list[Row]) -> ShardRecord:
    """Return the record of a written sidecar: rows with a reason are dropped."""
    dropped = Counter(row["reason"] for row in rows if row.get("reason"))
    kept = len(rows) - dropped.total()
    return ShardRecord(
        unit.name, unit.key, (FileRecord.of(root, path),), len(rows), kept, dict(sorted(dropped.items()))
    )
