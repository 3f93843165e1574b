"""pretokenize / index: one table a tier that says where each sample of its shards lies, so that training opens one file
and not the index of every shard."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from manifests.files import digest_of
from manifests.journal import FileRecord, ShardRecord, records_of
from pipeline.execution.in_flight import InFlight
from pipeline.execution.redaction import RemovedRows, holds, measured_again
from pipeline.execution.step import Step, Unit
from tokenize_shards.packed_index import PackedIndex, write_packed_index


def packed_shards(root: Path) -> dict[str, list[ShardRecord]]:
    """Return tier -> the records of its packed shards, by name."""
    found: dict[str, list[ShardRecord]] = {}
    for record in records_of(root, "pack"):
        found.setdefault(record.shard.rpartition("-")[0], []).append(record)
    return found


@dataclass(frozen=True)
class IndexStep(Step):
    """Units are tiers that have a packed shard; what is written follows from the shards alone."""

    name: ClassVar[str] = "index"
    version: ClassVar[int] = 1
    beam: ClassVar[bool] = False

    def settings(self) -> dict[str, Any]:
        """Return nothing: places depend on the shards alone."""
        return {}

    def plan(self) -> list[Unit]:
        """Take the shards of a tier at once."""
        return [
            Unit(f"{tier}-00000", {"tier": tier}, digest_of([[record.shard, record.content] for record in records]))
            for tier, records in packed_shards(self.root).items()
        ]

    def open(self) -> "IndexStep":
        """Return itself: nothing to load."""
        return self

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `codes/TIER/index.parquet`."""
        path = write_packed_index(self.root / "codes" / unit.reads["tier"])
        samples = PackedIndex(path).samples
        return ShardRecord(unit.name, unit.key, (FileRecord.of(self.root, path),), samples, samples)

    def results(self, records: Sequence[ShardRecord]) -> Sequence[ShardRecord]:
        """Return those of the packed shards: the samples are theirs, and runs of before have no index."""
        return records_of(self.root, "pack")

    def facts(self) -> dict[str, Any]:
        """Return `data`: tier -> its shards, its samples, and the digest by which the trainer names them; nothing of a
        run of before there was an index."""
        if not records_of(self.root, self.name):
            return {}
        found = {}
        for tier, records in packed_shards(self.root).items():
            tars = [[Path(file.path).name, file.sha256] for record in records for file in record.files[:1]]
            samples = sum(record.rows_out for record in records)
            found[tier] = {"shards": len(records), "samples": samples, "digest": digest_of(tars)}
        return {"data": found}

    def redact(self, record: ShardRecord, removed: RemovedRows) -> ShardRecord:
        """Write it again from the shards, out of which the rows are taken by now, where it names one of them."""
        path = self.root / record.files[0].path
        if not holds(path, removed):
            return record
        samples = PackedIndex(write_packed_index(path.parent)).samples
        removed.counts[record.files[0].path] += record.rows_out - samples
        return measured_again(self.root, replace(record, rows_in=samples, rows_out=samples), [path])
