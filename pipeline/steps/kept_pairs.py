"""Find the kept rows of a tier and their pictures, shard by shard of pairs."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.images.decode import ImageFault, ImageLimits, open_picture
from manifests.files import FormatError
from manifests.journal import FileRecord, Journal, ShardRecord, records_of
from manifests.query import connect, files_sql
from manifests.schema import schema
from manifests.stored_pictures import stored_pictures
from pipeline.execution.decode_pool import Pair
from pipeline.execution.step import Unit

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


def unit_pairs(root: Path, unit: Unit, uids: Iterable[bytes]) -> Iterator[Pair]:
    """Yield (uid, JPEG) of these pairs of the unit's shard, in its order. Raises ShardError or OSError."""
    for key, sample in stored_pictures(root / unit.reads["tar"], {uid.hex() for uid in uids}):
        yield bytes.fromhex(key), sample["jpg"]


def shard_content(root: Path, shard: str) -> str:
    """Return the digest of the files of a shard of pairs. Raises FormatError where its record is damaged or gone."""
    journal = Journal(root, "fetch")
    record = journal.get(shard)
    if record is None:
        raise FormatError(f"{journal.folder / shard}.json: no record of this shard of pairs; pipeline repair mends it")
    return record.content


def opened(jpeg: bytes, max_pixels: int) -> Any:
    """Return the picture as RGB array (H, W, 3) uint8, or the reason why there is none."""
    try:
        return np.asarray(open_picture(jpeg, ImageLimits(max_pixels=max_pixels), stored=True))
    except ImageFault as fault:
        return fault.reason


def opened_rows(pairs: list[Pair], values: list[Any], **facts: Any) -> tuple[dict[bytes, Row], list[tuple[bytes, Any]]]:
    """Return uid -> row of every pair, and (uid, value) of those that opened.

    A value is what was made of the pair's JPEG, or the reason why there is none; `facts` stand in every row.
    """
    rows, whole = dict[bytes, Row](), []
    for (uid, jpeg), value in zip(pairs, values, strict=True):
        reason = value if isinstance(value, str) else None
        rows[uid] = {"uid": uid, "sha256": hashlib.sha256(jpeg).digest(), "reason": reason, **facts}
        if reason is None:
            whole.append((uid, value))
    return rows, whole


def record_of(root: Path, unit: Unit, path: Path, rows: list[Row]) -> ShardRecord:
    """Return the record of a written sidecar: rows with a reason are dropped."""
    dropped = Counter(row["reason"] for row in rows if row.get("reason"))
    kept = len(rows) - dropped.total()
    return ShardRecord(
        unit.name, unit.key, (FileRecord.of(root, path),), len(rows), kept, dict(sorted(dropped.items()))
    )
