"""A shuffle for tests: how often each number stands in the run's files, told to the files in which it stood."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from manifests.files import digest_of, write_table
from manifests.journal import FileRecord, ShardRecord
from pipeline.execution.delivered import Delivered
from pipeline.execution.shuffle import Gathered, Leg
from pipeline.execution.slices import Piece
from pipeline.execution.step import Unit

FILES = ((5, 7, 5), (), (7, 7, 9))
"""The numbers in each of the run's files."""
SPREAD = "parts.txt"
"""In the run folder: into how many parts the numbers are spread."""


@dataclass(frozen=True)
class ByNumber(Leg):
    """Numbers, and their files, by number."""

    name: ClassVar[str] = "counts_split"
    into: ClassVar[str] = "counts"
    carried: ClassVar[pa.Schema] = pa.schema({"number": pa.int64(), "home": pa.int32()})

    def reads(self) -> str:
        return digest_of(FILES)

    def rows(self) -> int:
        return sum(map(len, FILES))

    def parts(self) -> int:
        return int((self.root / SPREAD).read_text())

    def plan(self) -> list[Unit]:
        return [
            Unit(f"{home:05d}", {"home": home, "parts": self.parts(), "rows": len(numbers)}, str(self.parts()))
            for home, numbers in enumerate(FILES)
        ]

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        numbers = np.array(FILES[unit.reads["home"]], np.int64)
        homes = np.full(len(numbers), unit.reads["home"], np.int32)
        yield numbers % unit.reads["parts"], pa.record_batch([numbers, homes], schema=self.carried)


@dataclass(frozen=True)
class Count(Leg):
    """Numbers and how often they stand in all files, by file."""

    name: ClassVar[str] = "counts_reduce"
    into: ClassVar[str] = "counts"
    after: ClassVar[type[Leg] | None] = ByNumber
    carried: ClassVar[pa.Schema] = pa.schema({"number": pa.int64(), "times": pa.int64()})

    def reads(self) -> str:
        return digest_of(FILES)

    def rows(self) -> int:
        return sum(map(len, FILES))

    def parts(self) -> int:
        return len(FILES)

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        numbers, counts = np.unique(rows["number"].to_numpy(), return_counts=True)
        pairs = sorted(set(zip(rows["home"].to_pylist(), rows["number"].to_pylist(), strict=True)))
        homes = np.array([home for home, _ in pairs], np.int64)
        own = np.array([number for _, number in pairs], np.int64)
        times = counts[np.searchsorted(numbers, own)] if len(own) else own
        yield homes, pa.record_batch([own, times], schema=self.carried)


@dataclass(frozen=True)
class Counts(Gathered):
    """`counts/N.parquet`: the numbers of file N and how often they stand in all files."""

    name: ClassVar[str] = "counts"
    legs: ClassVar[tuple[type[Leg], ...]] = (ByNumber, Count)

    def plan(self) -> list[Unit]:
        content = digest_of(FILES)
        return [
            Unit(f"{home:05d}", {"part": home, "rows": len(numbers)}, content) for home, numbers in enumerate(FILES)
        ]

    def finish(self, unit: Unit, rows: pa.Table) -> ShardRecord:
        path = self.root / "counts" / f"{unit.name}.parquet"
        write_table(path, rows.sort_by("number").combine_chunks())
        return ShardRecord(unit.name, unit.key, (FileRecord.of(self.root, path),), rows.num_rows, rows.num_rows)


@dataclass(frozen=True)
class Falling(Counts):
    """Its first try at the second file falls over."""

    def finish(self, unit: Unit, rows: pa.Table) -> ShardRecord:
        mark = Path(self.root) / "fallen"
        if unit.name == "00001" and not mark.exists():
            mark.touch()
            raise RuntimeError("fell over")
        return super().finish(unit, rows)


@dataclass(frozen=True)
class Numbers(Delivered):
    """The numbers and their files, for readers that are no units of a shuffle."""

    name: ClassVar[str] = "numbers"
    legs: ClassVar[tuple[type[Leg], ...]] = (ByNumber,)
    key: ClassVar[tuple[str, ...]] = ("number", "home")
