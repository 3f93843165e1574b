"""Find the kept rows of a tier and their pictures, shard by shard of pairs."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.images.decode import ImageFault, ImageLimits, open_picture
from manifests.files import FormatError
from manifests.journal import FileRecord, Journal, ShardRecord, records_of
from manifests.query import FILES, batches, connect, files_sql
from manifests.schema import schema
from manifests.stored_pictures import stored_pictures
from manifests.uid import uid_hash, uid_hash_sql
from pipeline.execution.decode_pool import Pair
from pipeline.execution.step import Unit

if TYPE_CHECKING:
    import duckdb
Row = dict[str, Any]
KEPT = "fate = 'kept' AND list_has_any(tiers, ?)"
ROWS = 500_000
"""Planned rows whose shards are asked for together."""
BITS = 16
"""First bits of a draw that are counted: of 50 million rows some 760 have the same."""


def final_tables(root: Path) -> list[Path]:
    """Return the tables of what became of every row, in order."""
    return [root / file.path for record in records_of(root, "decide") for file in record.files]


def kept_by_shard(root: Path, tiers: list[str], among: str = "true") -> Iterator[tuple[str, pa.Table]]:
    """Yield (shard of pairs, table of uid) of the kept rows of any of these tiers, by shard and uid; `among`: SQL of
    which of them.

    Rows of a shard stand in few of the final tables, neighbours as a rule, so that some shards are asked for at a time.
    """
    finals = final_tables(root) if tiers else []
    with connect(root) as connection:
        for shards, holders in _asked_together(connection, finals):
            query = f"""
                SELECT shard, uid FROM {files_sql([finals[number] for number in sorted(holders)])}
                WHERE shard BETWEEN ? AND ? AND {KEPT} AND ({among}) ORDER BY shard, uid"""
            yield from _by_shard(connection.execute(query, [shards[0], shards[-1], tiers]).to_arrow_table())


def _asked_together(
    connection: "duckdb.DuckDBPyConnection", finals: list[Path]
) -> Iterator[tuple[list[str], set[int]]]:
    """Yield shards of pairs in order, with the numbers of the final tables that hold rows of theirs: at most FILES
    tables and ROWS rows, where those of one shard alone are not more."""
    holders: dict[str, dict[int, int]] = {}
    for start in range(0, len(finals), FILES):
        query = f"""
            SELECT shard, file_index, count(*) FROM {files_sql(finals[start : start + FILES])}
            WHERE shard IS NOT NULL GROUP BY ALL"""
        for shard, number, rows in connection.execute(query).fetchall():
            holders.setdefault(shard, {})[start + number] = rows
    some, tables, rows = list[str](), set[int](), 0
    for shard in sorted(holders):
        count = sum(holders[shard].values())
        if some and (len(tables | holders[shard].keys()) > FILES or rows + count > ROWS):
            yield some, tables
            some, tables, rows = [], set(), 0
        some.append(shard)
        tables, rows = tables | holders[shard].keys(), rows + count
    if some:
        yield some, tables


def _by_shard(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of each shard of a table of (shard, uid) in order."""
    runs = pc.run_end_encode(table["shard"].combine_chunks())
    start = 0
    for shard, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        uids = table["uid"].slice(start, end - start).cast(pa.binary(16)).combine_chunks()
        yield shard, pa.table([uids], schema=schema("uid"))
        start = end


def lowest_draws(root: Path, tier: str, removed: Collection[bytes], seed: int, most: int) -> str:
    """Return SQL that holds for those of a tier's kept rows that are among the `most` with the lowest draws. Removed
    rows of the tier count too: they hand their place to nobody.

    Draws are counted by their first BITS bits; rows are looked at one by one only where the bound lies.
    """
    draw, finals = uid_hash_sql("uid", seed), final_tables(root)
    gone = [(uid_hash(uid, seed), uid) for uid in removed]
    counts = np.zeros(1 << BITS, np.int64)
    np.add.at(counts, [one >> (64 - BITS) for one, _ in gone], 1)
    with connect(root) as connection:
        connection.register("gone", pa.table({"uid": pa.array([uid for _, uid in gone], pa.binary())}))
        kept = f"(SELECT uid::BLOB AS uid FROM {{}} WHERE {KEPT})"
        drawn = f"SELECT uid, {draw} AS draw FROM {kept} ANTI JOIN gone USING (uid)"
        for some in batches(finals, FILES):
            query = f"SELECT (draw >> {64 - BITS})::BIGINT, count(*) FROM ({drawn.format(files_sql(some))}) GROUP BY 1"
            for place, count in connection.execute(query, [[tier]]).fetchall():
                counts[place] += count
        below = np.cumsum(counts)
        if below[-1] <= most:
            return "true"
        bound = int(np.searchsorted(below, most))
        near = [(one, uid) for one, uid in gone if one >> (64 - BITS) == bound]
        for some in batches(finals, FILES):
            query = f"SELECT draw, uid FROM ({drawn.format(files_sql(some))}) WHERE draw >> {64 - BITS} = {bound}"
            near += connection.execute(query, [[tier]]).fetchall()
    last, uid = sorted(near)[most - int(below[bound] - counts[bound]) - 1]
    return f"{draw} < {last}::UBIGINT OR ({draw} = {last}::UBIGINT AND uid <= unhex('{uid.hex()}'))"


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
