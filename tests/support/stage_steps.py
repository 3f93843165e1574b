"""Two steps for a stage that tests make: one writes numbers, the next their doubles; both work in the driver."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from manifests.files import write_table
from manifests.journal import FileRecord, ShardRecord, records_of
from manifests.weights import WeightsFile
from pipeline.execution.in_flight import InFlight
from pipeline.execution.step import Step, Unit
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import Recipe

ROWS = 3
"""Rows of each of the first step's two units; one of them is dropped as `too_odd`."""


@dataclass(frozen=True)
class Numbers(Step):
    """Two units; each writes two of its three rows."""

    name: ClassVar[str] = "numbers"
    beam: ClassVar[bool] = False
    counts_rows: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        return {"seed": self.recipe.input.seed}

    def weights(self) -> Sequence[WeightsFile]:
        return [WeightsFile("small", "ab" * 32, stand_in=True)]

    def plan(self) -> list[Unit]:
        return [Unit(f"{number:05d}", {"first": number * ROWS}, str(number)) for number in range(2)]

    def open(self) -> "Numbers":
        return self

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        first = self.recipe.input.seed + unit.reads["first"]
        return self.finish(unit, [first, first + 1], {"too_odd": 1})

    def finish(self, unit: Unit, numbers: list[int], dropped: dict[str, int]) -> ShardRecord:
        """Write the numbers of a unit and return its record."""
        path = self.root / self.name / f"{unit.name}.parquet"
        write_table(path, pa.table({"n": numbers}))
        rows = len(numbers) + sum(dropped.values())
        return ShardRecord(unit.name, unit.key, (FileRecord.of(self.root, path),), rows, len(numbers), dropped)

    def notes(self) -> list[str]:
        return [f"note of {self.name}"]

    def losses(self) -> list[dict[str, Any]]:
        return [{"kind": "file", "name": "lost.parquet"}]


@dataclass(frozen=True)
class Doubles(Numbers):
    """A unit per unit of `numbers`: the doubles of what it wrote."""

    name: ClassVar[str] = "doubles"
    counts_rows: ClassVar[bool] = False

    def settings(self) -> dict[str, Any]:
        return {"limit": self.recipe.input.limit}

    def plan(self) -> list[Unit]:
        return [Unit(record.shard, {}, record.content) for record in records_of(self.root, "numbers")]

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        first = self.recipe.input.seed + int(unit.name) * ROWS
        return self.finish(unit, [2 * first, 2 * first + 2], {})

    def tiers(self) -> dict[str, int]:
        return {"pretrain": 4}

    def facts(self) -> dict[str, Any]:
        return {"doubled": True}

    def losses(self) -> list[dict[str, Any]]:
        return []


def recipe_at(root: Path, **input_values: Any) -> Recipe:
    """Return a recipe for the run folder `root`; it reads its rows from the folder `in` beside it."""
    values = {"files": f"{root.parent}/in/*.parquet", "dataset": "laion-coco", **input_values}
    return parse_recipe({"input": values, "output": {"root": str(root)}, "tier": {"pretrain": {"size": 64}}})
