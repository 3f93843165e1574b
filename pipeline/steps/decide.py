"""filter / decide: put stored values and thresholds together and give every input row its one fate.

Plan, pairs, attempts and scores of a number hold the same rows, so that these are evaluated within a shard of the fetch
(`evaluate`) once it is known which rows have twins (`twins`); those that pass and have some meet cluster by cluster
(`contest`), and each shard of the final ledger is put together from the few fetch shards that its rows are in
(`final`). What passes between them lies in a scratch folder.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.survivors import halves
from filters.verdicts import NEAR, reasons_of
from manifests.files import digest_of, read_table, write_bytes, write_json
from manifests.journal import ShardRecord, records_of, upstream
from manifests.schema import DIGESTS
from manifests.store import drop
from manifests.tombstones import tombstones_sha256
from pipeline.execution.in_flight import InFlight
from pipeline.execution.shuffle import Derived, here, sweep_scratch
from pipeline.execution.step import Do, Step, Unit
from pipeline.recipes.rules import build_rules, origins, own_filters
from pipeline.steps.contest import Losers
from pipeline.steps.evaluate import Evaluate, scratch_of, units_of
from pipeline.steps.facts import fetch_shards
from pipeline.steps.final import INDEX, Final, index_entries
from pipeline.steps.labels import write_marks
from pipeline.steps.twins import Twins, write_clusters

EVALUATED_ROWS = 100_000
"""Rows of a unit that evaluates: memory, not speed, sets it."""
NOBODY = np.empty((0, 2), np.uint64)
STAMP = "stamp"
"""In the scratch folder: a digest of what the work in it is for."""


@dataclass(frozen=True)
class Decide(Step):
    """One unit to its journal and its manifest: rules over all values, the best member of each cluster, one final row
    per input row. Within it, units of shards."""

    name: ClassVar[str] = "decide"
    version: ClassVar[int] = 2
    beam: ClassVar[bool] = False
    over_all_rows: ClassVar[bool] = True
    counts_rows: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        """Return all rules, in order."""
        plain = self.recipe.plain()
        tiers = [[name, tier["rules"]] for name, tier in plain["tier"].items()]
        return {
            "filter": plain["filter"]["rules"],
            "tiers": tiers,
            "origins": origins(self.recipe),
            **own_filters(self.recipe),
        }

    def plan(self) -> list[Unit]:
        """Take everything at once."""
        return [Unit("00000", {}, upstream(self.root, "select", "fetch", "score", "dedup"))]

    def open(self) -> "Decide":
        """Return itself: nothing to load."""
        return self

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Do all of it in this process."""
        return self.do_unit(unit, here)

    def do_unit(self, unit: Unit, do: Do, grouped: bool = False) -> ShardRecord:
        """Write `ledger/final/NAME.parquet`, one for each shard of `ledger/select/`, its rows in the same order.

        A file whose rows have the fates that it says already stays. What a killed attempt finished is taken up.
        """
        scratch = self._scratch(unit)
        Twins(self.recipe, self.root, self.runtime).make(do, grouped)
        write_clusters(scratch)
        said = self._evaluate(unit, do)
        Losers(self.recipe, self.root, self.runtime).make(do, grouped)
        write_json(scratch / INDEX, self._index(said))
        finals = self._finals(unit, do)
        files = tuple(file for record in finals for file in record.files)
        written = {self.root / file.path for file in files}
        for stale in set((self.root / "ledger" / "final").glob("*.parquet")) - written:
            stale.unlink()
        rows, reasons = sum(record.rows_in for record in finals), Counter[str]()
        for record in finals:
            reasons.update(record.dropped)
        keys = {record.shard: record.read["key"] for record in finals}
        sweep_scratch(self.root, scratch.name)
        kept = rows - reasons.total()
        return ShardRecord("00000", unit.key, files, rows, kept, dict(sorted(reasons.items())), {"finals": keys})

    def _scratch(self, unit: Unit) -> Path:
        """Return the scratch folder: empty, or what an attempt at the same work left."""
        scratch = scratch_of(self.root)
        stamp = digest_of([unit.key, tombstones_sha256(self.root)]).encode()
        if not (scratch / STAMP).is_file() or (scratch / STAMP).read_bytes() != stamp:
            drop(scratch)
            write_bytes(scratch / STAMP, stamp)
        return scratch

    def _evaluate(self, unit: Unit, do: Do) -> list[tuple[Unit, dict[str, Any]]]:
        """Give every fetched row its verdict; return each unit with what its record says."""
        scratch, step = scratch_of(self.root), Evaluate(self.recipe, self.root, self.runtime)
        write_marks(self.root, scratch, NOBODY)
        units = units_of(fetch_shards(self.root), EVALUATED_ROWS, unit.key)
        records = _done(step, units, do)
        removed = [bytes.fromhex(uid) for record in records for uid in record.read["removed"]]
        if removed:
            write_marks(self.root, scratch, halves(pa.array(removed, pa.binary(16))))
        return [(planned, record.read) for planned, record in zip(units, records, strict=True)]

    def _index(self, said: list[tuple[Unit, dict[str, Any]]]) -> dict[str, Any]:
        """Return what the units of `final` share: where what is known of a row lies."""
        has_digests = not said or any(
            entry["digests"] for _, entry in said
        )  # where all are of before, it stays as it was
        return {
            "version": self.version,
            "near": reasons_of(build_rules(self.recipe)).index(NEAR),
            "lacking": [] if has_digests else list(DIGESTS),
            "shards": [shard.plain() for planned, entry in said for shard in index_entries(planned, entry)],
        }

    def _finals(self, unit: Unit, do: Do) -> list[ShardRecord]:
        """Return the records of the shards of the final ledger."""
        step, selected = Final(self.recipe, self.root, self.runtime), records_of(self.root, "select")
        before = self.journal.get(unit.name)
        files = {Path(file.path).stem: asdict(file) for file in before.files} if before else {}
        keys = before.read.get("finals", {}) if before else {}
        units = []
        for record in selected:
            known = {"key": keys[record.shard], "file": files[record.shard]} if record.shard in keys else None
            reads = {"ledger": record.files[0].path, "rows": record.rows_in, "before": known}
            units.append(Unit(record.shard, reads, record.content, unit.key))
        return _done(step, units, do)

    def tiers(self) -> dict[str, int]:
        """Return tier -> rows that are kept for it."""
        counts = Counter(dict.fromkeys(self.recipe.tier, 0))
        for file in (file for record in records_of(self.root, self.name) for file in record.files):
            tiers = read_table(self.root / file.path, ["tiers"])["tiers"]
            for entry in pc.value_counts(pc.list_flatten(tiers)).to_pylist():
                counts[entry["values"]] += entry["counts"]
        return dict(counts)


def _done(step: Derived, units: list[Unit], do: Do) -> list[ShardRecord]:
    """Do those units that are not done; return the records of all."""
    if pending := [unit for unit in units if step.journal.done(unit.name, unit.key) is None]:
        do(step, pending)
    records = [step.journal.done(unit.name, unit.key) for unit in units]
    if any(record is None for record in records):
        raise AssertionError(f"decide: units of {step.name} were done and are not there")
    return [record for record in records if record is not None]
