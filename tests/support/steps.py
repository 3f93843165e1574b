"""Steps that tests hand to the supervised runner: they count, and one row of theirs kills its worker."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from captioning.captioner import CaptionerError
from manifests.files import write_table
from manifests.journal import FileRecord, ShardRecord
from manifests.weights import WeightsError
from pipeline.execution.in_flight import InFlight, batches
from pipeline.execution.step import Step, Unit


@dataclass(frozen=True)
class Counting(Step):
    """Six units of ten rows; writes the squares of their numbers."""

    name: ClassVar[str] = "counting"

    def settings(self) -> dict[str, Any]:
        return {}

    def plan(self) -> list[Unit]:
        return [Unit(f"{number:05d}", {"first": number * 10}, str(number)) for number in range(6)]

    def open(self) -> "Counting":
        return self

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        rows = [(n.to_bytes(16, "big"), n) for n in range(unit.reads["first"], unit.reads["first"] + 10)]
        squares: dict[int, int] = {}
        for batch in batches(rows, 4, in_flight):
            with in_flight.working_on(unit.name, [uid for uid, _ in batch]):
                for uid, n in batch:
                    if not in_flight.is_poisoned(uid):
                        self.work(n)
                        squares[n] = n * n
        return self.finish(unit, squares, len(rows))

    def work(self, n: int) -> None:
        """Nothing kills this one."""

    def finish(self, unit: Unit, squares: dict[int, int], rows: int) -> ShardRecord:
        path = self.root / "out" / f"{unit.name}.parquet"
        write_table(path, pa.table({"n": sorted(squares), "square": [squares[n] for n in sorted(squares)]}))
        dead = rows - len(squares)
        return ShardRecord(
            unit.name,
            unit.key,
            (FileRecord.of(self.root, path),),
            rows,
            len(squares),
            {"worker_died": dead} if dead else {},
        )


@dataclass(frozen=True)
class Killed(Counting):
    """Row 23 kills its worker whenever it is worked on."""

    def work(self, n: int) -> None:
        if n == 23:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class KilledOnce(Counting):
    """Row 23 kills its worker the first time only, as a machine short of memory would."""

    def work(self, n: int) -> None:
        mark = self.root / "killed-once"
        if n == 23 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Raising(Counting):
    """Row 23 raises."""

    def work(self, n: int) -> None:
        if n == 23:
            raise RuntimeError("a decoder fell over")


@dataclass(frozen=True)
class Hanging(Counting):
    """Row 23 never ends."""

    def work(self, n: int) -> None:
        if n == 23:
            time.sleep(3600)


@dataclass(frozen=True)
class Hopeless(Counting):
    """Dies before it has a row in hand."""

    def open(self) -> "Hopeless":
        os._exit(9)


@dataclass(frozen=True)
class WrongWeights(Counting):
    """Its weights do not fit."""

    def open(self) -> "WrongWeights":
        raise WeightsError("weights of x: got (1, 2), wanted (3, 4)")


@dataclass(frozen=True)
class FullDisk(Counting):
    """The disk is full at row 23."""

    def work(self, n: int) -> None:
        if n == 23:
            raise OSError(28, "No space left on device")


@dataclass(frozen=True)
class KillsForkServer(Counting):
    """Row 23 kills the process that its worker was forked from, the first time only."""

    def work(self, n: int) -> None:
        mark = self.root / "killed-once"
        if n == 23 and not mark.exists():
            mark.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(3600)


@dataclass(frozen=True)
class Telling(Counting):
    """Says where it works."""

    def open(self) -> "Telling":
        print(os.environ["TESSERA_TEST"], os.getcwd(), tempfile.gettempdir())
        print("imported:", *sorted({"apache_beam", "pandas"} & set(sys.modules)))
        return self


@dataclass(frozen=True)
class Streaming(Counting):
    """Goes over the ends of units: it has begun the next one when the first is done."""

    def stream(self, units: Iterator[Unit], in_flight: InFlight) -> Iterator[ShardRecord]:
        before: Unit | None = None
        for unit in units:
            if before is not None:
                print("begun", unit.name, "before the end of", before.name, flush=True)
                yield self.run(before, in_flight)
            before = unit
        if before is not None:
            yield self.run(before, in_flight)


@dataclass(frozen=True)
class StreamingKilled(Streaming):
    """The same, killed with row 23."""

    def work(self, n: int) -> None:
        if n == 23:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Slow(Counting):
    """Its first unit in the order of claims takes long."""

    def work(self, n: int) -> None:
        time.sleep(0.3 if n < 10 else 0.0)


@dataclass(frozen=True)
class Refusing(Counting):
    """A captioner that cannot answer row 23, nor ever will."""

    def work(self, n: int) -> None:
        if n == 23:
            raise CaptionerError("llava: its tokenizer has no <image>")
