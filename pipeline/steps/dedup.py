"""filter / dedup: cluster near duplicates by perceptual hash. Clusters only: who survives is a decision."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.survivors import halves
from manifests.files import open_table, read_field, read_table, write_json, write_table, writing_table
from manifests.journal import FileRecord, ShardRecord, records_of, upstream
from manifests.schema import schema
from manifests.tables import CLUSTERS, MARKS, MATCHES
from manifests.tombstones import read_tombstones
from pipeline.execution.in_flight import InFlight
from pipeline.execution.shuffle import here, sweep_scratch
from pipeline.execution.step import Do, Step, Unit
from pipeline.recipes.lists import dedup_key
from pipeline.steps.frequent import frequent_hashes
from pipeline.steps.labels import binary
from pipeline.steps.near import Near, Part
from pipeline.steps.near_legs import INTO

Numbers = np.ndarray[Any, np.dtype[Any]]
HELD_ROWS = 1_000_000
"""Pictures up to which the driver clusters them itself: 230 bytes each, and no worker is started."""


@dataclass(frozen=True)
class Dedup(Step):
    """One unit: connected components of pHashes within the radius, over all decoded pictures."""

    name: ClassVar[str] = "dedup"
    version: ClassVar[int] = 3
    beam: ClassVar[bool] = False
    over_all_rows: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        """Return [dedup], [decontaminate] and the lists of pHashes: what they hold, not where they lie."""
        return dedup_key(self.recipe)

    def plan(self) -> list[Unit]:
        """Take all scores at once."""
        return [Unit("00000", {}, upstream(self.root, "fetch", "score"))]

    def open(self) -> "Dedup":
        """Return itself: nothing to load."""
        return self

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Do all of it in this process."""
        return self.do_unit(unit, here)

    def do_unit(self, unit: Unit, do: Do, grouped: bool = False) -> ShardRecord:
        """Write clusters (`dedup/00000.parquet`), marks and matches (`ledger/`), and `dedup/top_hashes.json`.

        Up to HELD_ROWS pictures are clustered here; more by parts, in units of their own (near.py), to the same bytes.
        """
        from pipeline.steps.marks import Marker

        pictures = sum(record.rows_in for record in records_of(self.root, "score"))
        near = Near(self, unit, pictures, do) if pictures > HELD_ROWS else None
        least = self.recipe.dedup.placeholder_min
        marker = Marker(self.recipe, self.root, *(near.frequent(least) if near else frequent_hashes(self.root, least)))
        parts = near.parts() if near else [self._at_once()]
        ledger, rows = self.root / "ledger", 0
        paths = (self.root / "dedup" / "00000.parquet", ledger / "marks.parquet", ledger / "eval_matches.parquet")
        schemas = (CLUSTERS, MARKS, MATCHES)
        with ExitStack() as stack:
            made, marks, matches = (
                stack.enter_context(writing_table(path, one)) for path, one in zip(paths, schemas, strict=True)
            )
            for part in parts:
                uids = binary(part.uids)
                made.write(pa.table([uids, binary(part.clusters)], schema=CLUSTERS))
                for writer, found in zip((marks, matches), marker.of_part(uids, part.hashes, part.barred), strict=True):
                    writer.write(found)
                rows += len(uids)
            for writer, found in zip((marks, matches), marker.rest(), strict=True):
                writer.write(found)
        for path, one in zip(paths, schemas, strict=True):
            if not pq.read_metadata(path).num_rows:
                write_table(path, one.empty_table())  # a table without rows has one row group, as it had before
        report = self.root / "dedup" / "top_hashes.json"
        write_json(report, {"hashes": marker.top})
        sweep_scratch(self.root, INTO)
        files = tuple(FileRecord.of(self.root, path) for path in (*paths, report))
        return ShardRecord("00000", unit.key, files, rows, rows)

    def _at_once(self) -> Part:
        """Cluster all pictures in this process."""
        tables = [read_table(self.root / r.files[0].path, ["uid", "phash"]) for r in records_of(self.root, "score")]
        table = pa.concat_tables(tables) if tables else schema("uid", "phash").empty_table()
        table = table.filter(pc.is_valid(table["phash"])).sort_by("uid")
        labels, barred = among_removed(table, read_tombstones(self.root).removed_neighbours, self.recipe.dedup.radius)
        uids = halves(table["uid"])
        return Part(uids, table["phash"].to_numpy().astype(np.uint64), uids[labels], barred)

    def outcome_notes(self) -> list[str]:
        """Say how many clusters, marks and matches there are, and which pHash is the most frequent."""
        count, sizes = self._sizes()
        largest = f", the largest of {sizes.max():,}" if len(sizes) else ""
        notes = [f"\n  dedup: {count:,} pictures, {len(sizes):,} clusters of two and more{largest}"]
        for top in read_field(self.root / "dedup" / "top_hashes.json", "hashes", list)[:1]:
            notes.append(
                f"  most frequent pHash {top['phash']}: {top['pictures']:,} pictures under {top['urls']:,} URLs"
                " (dedup/top_hashes.json)"
            )
        reasons = Counter[str]()
        with open_table(self.root / "ledger" / "marks.parquet") as file:
            for batch in file.iter_batches(columns=["reason"]):
                reasons.update({one["values"]: one["counts"] for one in pc.value_counts(batch["reason"]).to_pylist()})
        notes += [f"  marked {reason}: {number:,}" for reason, number in reasons.items()]
        if matches := pq.read_metadata(self.root / "ledger" / "eval_matches.parquet").num_rows:
            notes.append(f"  matches with evaluation sets: {matches:,} (ledger/eval_matches.parquet)")
        return notes

    def _sizes(self) -> tuple[int, Numbers]:
        """Return the number of pictures, and the sizes of clusters of two and more. Held on the way: 16 bytes a picture
        that has another one's uid as its cluster."""
        count, named = 0, [np.zeros((0, 2), np.uint64)]
        with open_table(self.root / "dedup" / "00000.parquet") as file:
            for batch in file.iter_batches(columns=["uid", "cluster"]):
                uids, clusters = halves(batch["uid"]), halves(batch["cluster"])
                named.append(clusters[np.any(uids != clusters, axis=1)])
                count += batch.num_rows
        twins = np.concatenate(named)
        twins = twins[np.lexsort((twins[:, 1], twins[:, 0]))]
        begins = np.ones(len(twins), np.bool_)
        begins[1:] = np.any(twins[1:] != twins[:-1], axis=1)
        return count, np.diff(np.append(np.flatnonzero(begins), len(twins))) + 1


def among_removed(pictures: pa.Table, removed_neighbours: pa.Table, radius: int) -> "tuple[Numbers, Numbers]":
    """Cluster pictures as if removed ones were still there; return labels, and which pictures a removed one keeps out.

    Labels are places among the pictures alone: the smallest of each component. Both tables are in order of uid.
    """
    from filters.dedup import clusters

    count = pictures.num_rows
    hashes = np.concatenate([table["phash"].to_numpy().astype(np.uint64) for table in (pictures, removed_neighbours)])
    labels = clusters(hashes, radius)
    barring = np.unique(labels[count:][removed_neighbours["bars"].to_numpy().astype(bool)])
    return labels[:count], np.isin(labels[:count], barring)
