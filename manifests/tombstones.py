"""Keep what was removed from a run: which selector named it, hashes of it, and its place among its near duplicates."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.checksums import sha256_file
from manifests.files import FormatError, digest_of, finished, read_table, write_table
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.schema import DIGESTS, schema

TOMBSTONES = "tombstones.parquet"
NAME = "tombstones"
STEP = "remove"
"""The journal's folder that names the file's sha256."""
KINDS = ("url", "host", "uid", "sha256", "phash", *DIGESTS)
BY_TOMBSTONE = "tombstone of"
"""How the detail of a mark begins that a tombstone made: the row says nothing of itself any more."""
TABLE = pa.schema(
    [
        pa.field("kind", pa.string(), metadata={"says": "what the selector was: one of KINDS"}),
        pa.field("value_sha256", pa.string(), metadata={"says": "sha256 in hex of the selector's normalised value"}),
        pa.field(
            "phash",
            pa.uint64(),
            metadata={"says": "pHash of the removed picture, where it was fetched; of a phash selector its value"},
        ),
        pa.field("uid", pa.binary(16), metadata={"says": "uid of the removed row; null where no row was named"}),
        *schema("source", "source_row"),
        pa.field("shard", pa.string(), metadata={"says": "shard of pairs in which the row leaves a gap"}),
        pa.field("tiers", pa.list_(pa.string()), metadata={"says": "tiers that the row was in"}),
        pa.field("packed", pa.list_(pa.string()), metadata={"says": "tiers in whose packed order it leaves a gap"}),
        pa.field(
            "packed_bytes",
            pa.list_(pa.int64()),
            metadata={"says": "how much it counted towards the size of those shards"},
        ),
        pa.field("won", pa.bool_(), metadata={"says": "the row was kept: its near duplicates stay out"}),
        pa.field("promote", pa.bool_(), metadata={"says": "its near duplicates may take its place after all"}),
        pa.field(
            "list",
            pa.string(),
            metadata={
                "says": "list of hashes of [filter] exclude that named the picture, when it was fetched or aside"
            },
        ),
    ]
)
"""`tombstones.parquet`: a row per selector and removed row of the input, one without a row for a selector that named
none."""
ORDER = [(name, "ascending") for name in ("kind", "value_sha256", "source", "source_row")]


def value_digest(value: str) -> str:
    """Return what stands for a normalised value: the sha256 of its UTF-8 bytes, in hex."""
    return hashlib.sha256(value.encode()).hexdigest()


@dataclass(frozen=True)
class Tombstones:
    """The tombstones of a run."""

    table: pa.Table

    def __bool__(self) -> bool:
        return bool(self.table.num_rows)

    def values(self, kind: str) -> pa.Array:
        """Return the distinct value_sha256 of a kind of selector."""
        return self._where(pc.equal(self.table["kind"], kind))["value_sha256"].combine_chunks().unique()

    @cached_property
    def uids(self) -> pa.Array:
        """Return the distinct uids of removed rows, binary(16)."""
        return self.table["uid"].combine_chunks().drop_null().unique()

    @cached_property
    def uid_digests(self) -> pa.Array:
        """Return the distinct value_sha256 of removed uids that stand in no tombstone: those of before hold the digest
        alone where the run had no row of the uid."""
        named = pa.array([value_digest(uid.hex()) for uid in self._of_uids["uid"].drop_null().to_pylist()], pa.string())
        values = self._of_uids["value_sha256"].combine_chunks()
        return values.filter(pc.invert(pc.is_in(values, value_set=named))).drop_null().unique()

    @cached_property
    def _of_uids(self) -> pa.Table:
        return self._where(pc.equal(self.table["kind"], "uid"))

    @cached_property
    def phashes(self) -> pa.Array:
        """Return the pHashes that selectors named, uint64."""
        return self._where(pc.equal(self.table["kind"], "phash"))["phash"].combine_chunks().drop_null().unique()

    @cached_property
    def by_list(self) -> dict[str, int]:
        """Return list of hashes -> rows of the input whose pictures it named when they were fetched, in order of
        names."""
        if "list" not in self.table.schema.names:
            return {}
        placed = self._where(pc.is_valid(self.table["source_row"]))
        names = placed["list"].drop_null().value_counts().to_pylist()
        return dict(sorted((entry["values"], entry["counts"]) for entry in names))

    @cached_property
    def listed(self) -> pa.Table:
        """Return kind, value_sha256, uid and list of what lists of hashes named without a place in the input: URLs, and
        rows that lay aside alone."""
        if "list" not in self.table.schema.names:
            return TABLE.empty_table()
        return self._where(pc.and_(pc.is_valid(self.table["list"]), pc.is_null(self.table["source_row"])))

    @cached_property
    def places(self) -> pa.Table:
        """Return source, source_row and uid of the removed rows, each once."""
        found = self._where(pc.is_valid(self.table["source_row"])).select(["source", "source_row", "uid"])
        return found.group_by(["source", "source_row", "uid"], use_threads=False).aggregate([])

    @cached_property
    def removed_neighbours(self) -> pa.Table:
        """Return uid, phash and `bars` (whether its near duplicates stay out) of the removed pictures, in order of
        uid."""
        found = self._where(pc.and_(pc.is_valid(self.table["uid"]), pc.is_valid(self.table["phash"])))
        bars = pc.and_(found["won"], pc.invert(found["promote"]))
        rows = pa.table({"uid": found["uid"], "phash": found["phash"], "bars": bars})
        made = (
            rows.group_by(["uid", "phash"], use_threads=False)
            .aggregate([("bars", "max")])
            .rename_columns(["uid", "phash", "bars"])
        )
        return made.sort_by("uid")

    @cached_property
    def fetched(self) -> pa.Table:
        """Return source and source_row of the rows that leave a gap in a shard of pairs."""
        found = self._where(pc.is_valid(self.table["shard"])).select(["source", "source_row"])
        return found.group_by(["source", "source_row"], use_threads=False).aggregate([])

    def chosen(self, tier: str) -> dict[bytes, None]:
        """Return the uids of rows that were in a tier."""
        return {
            row["uid"]: None for row in self.table.select(["uid", "tiers"]).to_pylist() if tier in (row["tiers"] or ())
        }

    def packed(self, tier: str) -> dict[bytes, int]:
        """Return uid -> bytes of the rows that leave a gap in a tier's packed order."""
        rows = self.table.select(["uid", "packed", "packed_bytes"]).to_pylist()
        return {
            row["uid"]: size
            for row in rows
            for name, size in zip(row["packed"] or (), row["packed_bytes"] or (), strict=True)
            if name == tier
        }

    def _where(self, mask: pa.Array | pa.ChunkedArray) -> pa.Table:
        return self.table.filter(pc.fill_null(mask, False))


def read_tombstones(root: Path) -> Tombstones:
    """Return the tombstones of the run at `root`, none where nothing was removed.

    Raises FormatError where they are damaged, or missing though there is a record of them, OSError.
    """
    path = root / TOMBSTONES
    record = Journal(root, STEP).get(NAME)
    manifests = root / "manifests"
    noted = (manifests / "journal" / STEP / f"{NAME}.json").exists() or bool(finished(manifests / "removals", "*.json"))
    if noted and not path.exists():
        raise FormatError(f"{path}: missing, and what was removed would come back; restore it from a copy of the run")
    if record is not None and [sha256_file(path)] != [file.sha256 for file in record.files]:
        raise FormatError(f"{path}: damaged, and what was removed might come back; restore it from a copy of the run")
    return Tombstones(read_table(path) if path.exists() else TABLE.empty_table())


def tombstones_sha256(root: Path) -> str:
    """Return the sha256 in hex of a run's tombstones, "" where it has none: what plans that leave gaps depend on."""
    path = root / TOMBSTONES
    return sha256_file(path) if path.exists() else ""


def note_tombstones(root: Path) -> None:
    """Journal what the bytes of the tombstones are."""
    file, rows = FileRecord.of(root, root / TOMBSTONES), read_table(root / TOMBSTONES, ["kind"]).num_rows
    Journal(root, STEP).record(ShardRecord(NAME, digest_of([STEP, file.sha256]), (file,), rows, rows))


def write_tombstones(root: Path, rows: Collection[dict[str, Any]]) -> None:
    """Write the tombstones in an order of their own, and the journal that says what their bytes are."""
    table = pa.Table.from_pylist(list(rows), schema=TABLE).sort_by(ORDER).combine_chunks()
    write_table(root / TOMBSTONES, table)
    note_tombstones(root)
