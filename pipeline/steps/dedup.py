"""filter / dedup: cluster near duplicates by perceptual hash. Clusters only: who survives is a decision."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc

from manifests.files import open_table, read_field, rows_of, write_json, write_table, writing_table
from manifests.journal import FileRecord, ShardRecord, records_of, upstream
from manifests.tables import CLUSTERS, MARKS, MATCHES
from pipeline.execution.in_flight import InFlight
from pipeline.execution.shuffle import here, sweep_scratch
from pipeline.execution.step import Do, Step, Unit
from pipeline.recipes.lists import dedup_key
from pipeline.steps.near import Near
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
        from pipeline.steps.at_once import AtOnce

        pictures = sum(record.rows_in for record in records_of(self.root, "score"))
        by_parts = pictures > HELD_ROWS
        found = Near(self, unit, pictures, do, grouped) if by_parts else AtOnce(self.recipe, self.root)
        top, ledger, rows = found.top(), self.root / "ledger", 0
        paths = (self.root / "dedup" / "00000.parquet", ledger / "marks.parquet", ledger / "eval_matches.parquet")
        schemas = (CLUSTERS, MARKS, MATCHES)
        with ExitStack() as stack:
            writers = [stack.enter_context(writing_table(path, one)) for path, one in zip(paths, schemas, strict=True)]
            for tables in found.tables():
                for writer, table in zip(writers, tables, strict=True):
                    writer.write(table)
                rows += tables[0].num_rows
        for path, one in zip(paths, schemas, strict=True):
            if not rows_of(path):
                write_table(path, one.empty_table())  # a table without rows has one row group, as it had before
        report = self.root / "dedup" / "top_hashes.json"
        write_json(report, {"hashes": top})
        clusters, largest = found.sizes
        sweep_scratch(self.root, INTO)
        files = tuple(FileRecord.of(self.root, path) for path in (*paths, report))
        said = {"clusters": clusters, "largest": largest}
        return ShardRecord("00000", unit.key, files, rows, rows, read=said)

    def outcome_notes(self) -> list[str]:
        """Say how many clusters, marks and matches there are, and which pHash is the most frequent."""
        notes = [note for record in records_of(self.root, self.name) for note in _note(record)]
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
        if matches := rows_of(self.root / "ledger" / "eval_matches.parquet"):
            notes.append(f"  matches with evaluation sets: {matches:,} (ledger/eval_matches.parquet)")
        return notes


def _note(record: ShardRecord) -> list[str]:
    """Return what a unit's record says of its clusters."""
    if not (said := record.read):  # of before
        return []
    largest = f", the largest of {said['largest']:,}" if said["clusters"] else ""
    return [f"\n  dedup: {record.rows_out:,} pictures, {said['clusters']:,} clusters of two and more{largest}"]
