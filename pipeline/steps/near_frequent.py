"""filter / dedup over more pictures than one process should hold: how often each pHash comes, and what stands with the
most frequent ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.forest import sample_bits
from filters.hamming import MOVE_NS, SAMPLE, Array, Bands, choose_bands, distinct, part_of
from manifests.files import digest_of, read_json, write_json, writing
from manifests.journal import ShardRecord, records_of
from manifests.store import mapped
from pipeline.execution.shuffle import Leg, parts_for
from pipeline.execution.slices import Piece
from pipeline.execution.step import Do, Unit
from pipeline.steps.frequent import SPELLED, Frequent, asked_for, counted, first_of_all, of_shard, shards
from pipeline.steps.near_legs import GROUP_ROWS, TABLES, ByHash, NearEnd, NearLeg

ASKED = "asked.npy"
"""Beside the slices: the pHashes whose URLs and texts are counted, and how many pictures each has."""


def choose_tables(sample: Array, rows: int, radius: int) -> Bands:
    """Return the cut into tables: it follows from the set of pHashes and the number of rows alone."""
    sample = distinct(sample)
    return choose_bands(sample, radius, count=max(1, len(sample) << sample_bits(rows, SAMPLE)), table_ns=MOVE_NS)


@dataclass(frozen=True)
class Counted(NearEnd):
    """Of each part by pHash those that may be asked for; of the sample the cut into tables."""

    name: ClassVar[str] = "near_counted"
    legs: ClassVar[tuple[type[Leg], ...]] = (ByHash,)

    def plan(self) -> list[Unit]:
        """Return a unit for each part, and one for the sample."""
        content = digest_of([self.leg.reads(), self.leg.parts(), SAMPLE])
        rows, parts = self.leg.rows(), self.leg.parts()
        return [Unit(f"{part:05d}", {"part": part, "rows": rows // parts}, content) for part in range(parts + 1)]

    def finish(self, unit: Unit, rows: pa.Table) -> ShardRecord:
        """Write pHashes and the numbers of their pictures, (2, N), or the cut into tables."""
        hashes = rows["phash"].to_numpy()
        if unit.reads["part"] == self.leg.parts():
            bands = choose_tables(hashes, self.leg.rows(), self.recipe.dedup.radius)
            write_json(self.folder / TABLES, {"tables": list(bands.tables)})
            return self.record(unit, [self.folder / TABLES], rows.num_rows, {})
        path = self.folder / self.name / f"{unit.name}.npy"
        known, numbers = counted(hashes)
        save(path, asked_for([(known, numbers)], self.recipe.dedup.placeholder_min))
        return self.record(unit, [path], rows.num_rows, {})


def save(path: Path, values: Array) -> None:
    """Write an array by temporary name and rename."""
    with writing(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


@dataclass(frozen=True)
class Spelled(NearLeg):
    """What stands with the pictures of the pHashes that are asked for, by pHash."""

    name: ClassVar[str] = "near_frequent"
    carried: ClassVar[pa.Schema] = SPELLED

    def rows(self) -> int:
        """Return how many pictures have one of them."""
        return int(self.known[1].sum())

    def parts(self) -> int:
        """Return the parts by pHash."""
        return parts_for(self.rows(), SPELLED)

    @cached_property
    def known(self) -> Array:
        """Return the pHashes that are asked for, in order, and how many pictures each has: (2, N)."""
        known: Array = np.load(mapped(self.folder / ASKED))
        return known

    @property
    def asked(self) -> Array:
        """Return the pHashes that are asked for, in order."""
        asked: Array = self.known[0]
        return asked

    def plan(self) -> list[Unit]:
        """Return units of a few shards each."""
        places = {record.files[0].path: plan for record, plan in shards(self.root)}
        parts, content = self.parts(), digest_of([self.reads(), self.parts(), GROUP_ROWS, self.asked.tolist()])
        units = []
        for unit in ByHash(self.recipe, self.root, self.runtime).plan():
            files = [[name, places[name].relative_to(self.root).as_posix()] for name in unit.reads["files"]]
            units.append(Unit(unit.name, {**unit.reads, "files": files, "parts": parts}, content))
        return units

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield the pictures of some shards that have one of them."""
        for scores, plan in unit.reads["files"]:
            for batch in of_shard(self.root, scores, self.root / plan, self.asked):
                yield part_of(batch["phash"].to_numpy(), unit.reads["parts"]), batch


@dataclass(frozen=True)
class Told(NearEnd):
    """What stands with the pHashes of a part."""

    name: ClassVar[str] = "near_told"
    legs: ClassVar[tuple[type[Leg], ...]] = (Spelled,)

    def finish(self, unit: Unit, rows: pa.Table) -> ShardRecord:
        """Write the most frequent ones and the placeholders."""
        found = Frequent(self.recipe.dedup.placeholder_min)
        found.add(rows)
        top, stand_ins = found.found()
        path = self.folder / self.name / f"{unit.name}.json"
        write_json(path, {"top": top, "placeholders": stand_ins.tolist()})
        return self.record(unit, [path], rows.num_rows, {})


def find_frequent(counted_: Counted, told: Told, do: Do, grouped: bool) -> tuple[list[dict[str, Any]], Array]:
    """Return the most frequent pHashes with what stands under each, and those that make a placeholder."""
    counted_.make(do, grouped)
    files = [counted_.folder / file.path for one in records_of(counted_.folder, counted_.name) for file in one.files]
    parts = (np.load(mapped(path)) for path in files if path.name != TABLES)
    asked = asked_for(((one[0], one[1].astype(np.int64)) for one in parts), counted_.recipe.dedup.placeholder_min)
    save(counted_.folder / ASKED, asked)
    told.make(do, grouped)
    said = [read_json(told.folder / file.path) for one in records_of(told.folder, told.name) for file in one.files]
    placeholders = np.array(sorted(value for one in said for value in one["placeholders"]), np.uint64)
    return first_of_all(entry for one in said for entry in one["top"]), placeholders
