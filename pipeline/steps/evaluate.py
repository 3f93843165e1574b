"""filter / decide, first half: evaluate the rows of some shards of the fetch by the rules, each for itself."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.survivors import WORTH, Candidates, evaluate_rows
from filters.verdicts import Numbers, RuleSet, flags
from manifests.journal import FileRecord, ShardRecord
from manifests.layout import SCRATCH
from pipeline.execution.in_flight import InFlight
from pipeline.execution.shuffle import Scratch
from pipeline.execution.step import Unit
from pipeline.recipes.rules import build_rules, origins
from pipeline.steps.arrow_files import read_arrow, write_arrow
from pipeline.steps.facts import KEYS, FetchShard, ShardFacts, Values, facts_of, final_values
from pipeline.steps.labels import Labels, binary, mark_names
from pipeline.steps.sharding import runs

DECIDE = "decide"
NOT_EVALUATED = -2
"""Code of a row that was not fetched, or not scored."""
EVALUATED = pa.schema([("code", pa.int16()), ("tiers", pa.uint64()), ("cluster", pa.binary(16))])
"""A row per planned row of a unit's shards."""
CONTESTED = pa.schema(
    [
        ("cluster", pa.binary(16)),
        ("uid", pa.binary(16)),
        ("rank", pa.int16()),
        ("aesthetic", pa.float32()),
        ("pixels", pa.int64()),
        ("home", pa.int64()),
    ]
)
"""A row that must meet its twins: what it is compared by, and where it is at home: number of its unit, and of its row
there in the lower 32 bits."""


def scratch_of(root: Path) -> Path:
    """Return the folder that decide works in until all of its final ledger stands."""
    return root / SCRATCH / DECIDE


@dataclass(frozen=True)
class Evaluate(Scratch):
    """Units are runs of fetch shards: their verdicts go to a file each, and the rows that must meet their twins to
    another."""

    name: ClassVar[str] = "evaluate"
    into: ClassVar[str] = DECIDE

    @cached_property
    def rules(self) -> RuleSet:
        """Return the recipe's rules."""
        return build_rules(self.recipe)

    @cached_property
    def values(self) -> Values:
        """Return the value columns and where they come from."""
        return final_values(origins(self.recipe))

    def open(self) -> "Evaluate":
        """Return itself: what units share is built with the first of them."""
        return self

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write the unit's verdicts and contested rows; its record says how many rows each shard has, where they come
        from, which of them were removed, and whether its pairs have digests."""
        shards = [ShardFacts(self.root, FetchShard(**shard), self.values) for shard in unit.reads["shards"]]
        with in_flight.working_on(unit.name, ()):
            rows = self._facts(shards)
            paths = self._evaluate(unit, rows)
            counts = [len(shard.uids) for shard in shards]
            said = {
                "rows": counts,
                "spans": [_spans(shard.keys) for shard in shards],
                "removed": [uid.hex() for shard in shards for uid in shard.removed.to_pylist()],
                "digests": any(shard.has_digests for shard in shards),
                "contested": read_arrow(paths[1]).num_rows,
            }
        files = tuple(FileRecord.of(self.folder, path) for path in paths)
        return ShardRecord(unit.name, unit.key, files, rows.num_rows, rows.num_rows, read=said)

    def _facts(self, shards: list[ShardFacts]) -> pa.Table:
        """Return what rules and twins ask of the rows of shards, and whether a row is evaluated at all."""
        labels = Labels(self.folder)
        rows = facts_of(shards, {*self.rules.columns, *WORTH, *KEYS, "fault"})
        uids = rows["uid"].combine_chunks()
        evaluated = np.concatenate([shard.is_attempted for shard in shards]) & flags(pc.is_null(rows["fault"]))
        more = {"cluster": labels.clusters(uids), "mark": mark_names(labels.marks(uids)), "_evaluated": evaluated}
        for name, column in more.items():
            rows = rows.append_column(name, pa.array(column))
        return rows.combine_chunks()

    def _evaluate(self, unit: Unit, rows: pa.Table) -> list[Path]:
        """Write the verdicts of a unit's rows, and those that must meet others."""
        columns = {*self.rules.columns, *WORTH, "uid", "mark", "cluster"} & {*rows.column_names}
        evaluated = flags(rows["_evaluated"])
        facts = rows.select(sorted(columns)).filter(pa.array(evaluated))
        arrays = [column.combine_chunks() for column in facts.columns]
        found = evaluate_rows(pa.RecordBatch.from_arrays(arrays, names=facts.column_names), self.rules)
        places = np.flatnonzero(evaluated)
        code, tiers = np.full(len(evaluated), NOT_EVALUATED, np.int16), np.zeros(len(evaluated), np.uint64)
        code[places], tiers[places] = found.verdicts.code, found.verdicts.tiers
        paths = [self.folder / name / f"{unit.name}.arrow" for name in ("evaluated", "contested")]
        write_arrow(paths[0], pa.table([code, tiers, rows["cluster"]], schema=EVALUATED))
        homes = (np.int64(unit.reads["number"]) << 32) | places[found.rivals]
        write_arrow(paths[1], contested(found.candidates, homes))
        return paths


def contested(candidates: Candidates, homes: Numbers) -> pa.Table:
    """Return rows that must meet, as CONTESTED."""
    by = [candidates.rank, candidates.aesthetic, candidates.pixels]
    return pa.table([binary(candidates.cluster), binary(candidates.uid), *by, homes], schema=CONTESTED)


def _spans(table: pa.Table) -> list[list[Any]]:
    """Return [source, its first row, its last row] of each source that the rows of a shard come from."""
    bounds = table.group_by("source", use_threads=False).aggregate([("source_row", "min"), ("source_row", "max")])
    return [list(row) for row in zip(*(bounds[name].to_pylist() for name in bounds.column_names), strict=True)]


def units_of(shards: Iterable[FetchShard], rows: int, key: str) -> list[Unit]:
    """Return units of as many shards, at least one, as hold at most `rows` rows together."""
    return [_unit(number, run, key) for number, run in enumerate(runs(shards, lambda shard: shard.rows, rows))]


def _unit(number: int, run: list[FetchShard], key: str) -> Unit:
    reads = {"number": number, "shards": [asdict(shard) for shard in run], "rows": sum(shard.rows for shard in run)}
    return Unit(f"{number:05d}", reads, "", key)
