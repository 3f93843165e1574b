"""filter / dedup: cluster near duplicates by perceptual hash. Clusters only: who survives is a decision."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.files import read_field, read_table, write_json, write_table
from manifests.journal import FileRecord, ShardRecord, records_of, upstream
from manifests.schema import schema
from manifests.tables import CLUSTERS
from manifests.tombstones import read_tombstones
from pipeline.execution.in_flight import InFlight
from pipeline.execution.step import Step, Unit
from pipeline.recipes.lists import dedup_key

Numbers = np.ndarray[Any, np.dtype[Any]]


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
        """Write clusters (`dedup/00000.parquet`), marks and matches (`ledger/`), and `dedup/top_hashes.json`."""
        from pipeline.steps.marks import mark_rows

        tables = [read_table(self.root / r.files[0].path, ["uid", "phash"]) for r in records_of(self.root, "score")]
        table = pa.concat_tables(tables) if tables else schema("uid", "phash").empty_table()
        table = table.filter(pc.is_valid(table["phash"])).sort_by("uid")
        labels, barred = among_removed(table, read_tombstones(self.root).removed_neighbours, self.recipe.dedup.radius)
        uids = table["uid"].combine_chunks()
        made = pa.table([uids, uids.take(pa.array(labels))], schema=CLUSTERS)
        marked = mark_rows(self.recipe, self.root, table, uids.filter(pa.array(barred)))
        ledger = self.root / "ledger"
        written = {
            self.root / "dedup" / "00000.parquet": made,
            ledger / "marks.parquet": marked.marks,
            ledger / "eval_matches.parquet": marked.matches,
        }
        for path, content in written.items():
            write_table(path, content)
        report = self.root / "dedup" / "top_hashes.json"
        write_json(report, {"hashes": marked.top})
        files = tuple(FileRecord.of(self.root, path) for path in (*written, report))
        return ShardRecord("00000", unit.key, files, made.num_rows, made.num_rows)

    def outcome_notes(self) -> list[str]:
        """Say how many clusters, marks and matches there are, and which pHash is the most frequent."""
        clusters = read_table(self.root / "dedup" / "00000.parquet", ["cluster"])["cluster"]
        sizes = pc.struct_field(pc.value_counts(clusters), "counts").to_numpy()
        several = sizes[sizes > 1]
        largest = f", the largest of {several.max():,}" if len(several) else ""
        notes = [f"\n  dedup: {len(clusters):,} pictures, {len(several):,} clusters of two and more{largest}"]
        for top in read_field(self.root / "dedup" / "top_hashes.json", "hashes", list)[:1]:
            notes.append(
                f"  most frequent pHash {top['phash']}: {top['pictures']:,} pictures under {top['urls']:,} URLs"
                " (dedup/top_hashes.json)"
            )
        marks = read_table(self.root / "ledger" / "marks.parquet", ["reason"])["reason"]
        notes += [f"  marked {entry['values']}: {entry['counts']:,}" for entry in pc.value_counts(marks).to_pylist()]
        if matches := pq.read_metadata(self.root / "ledger" / "eval_matches.parquet").num_rows:
            notes.append(f"  matches with evaluation sets: {matches:,} (ledger/eval_matches.parquet)")
        return notes


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
