"""Let the workers of this machine take units as they become free: each unit is claimed by the first that comes to it.

Units lie in one file, a line each, in an order that all workers go through: a worker holds one of them at a time, or
as many as it streams, however many there are. A claim is a small file, made where none is, that holds its worker's
number. It stays when the unit is done, and goes when the worker has died, so that others take the unit over.
"""

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from manifests.files import write_bytes
from manifests.store import create
from pipeline.execution.step import Unit

DEATHS = "deaths.json"


@dataclass(frozen=True)
class Claims:
    """The units of one step and who has claimed which, below `folder`, which is on this machine."""

    folder: Path

    @property
    def _units(self) -> Path:
        return self.folder / "units.jsonl"

    def open(self, units: Iterable[Unit]) -> None:
        """Lay units down in this order, none of them claimed."""
        self.close()
        write_bytes(self._units, b"".join(json.dumps(asdict(unit)).encode() + b"\n" for unit in units))

    def close(self) -> None:
        """Take units and claims away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def taken(self, worker: int) -> Iterator[Unit]:
        """Yield units that nobody has claimed, each claimed for this worker when it is asked for."""
        with open(self._units, encoding="utf-8") as lines:
            for line in lines:
                unit = Unit(**json.loads(line))
                if self._claim(unit.name, worker):
                    yield unit

    def free(self, worker: int) -> None:
        """Let go of what a worker that has died had claimed, done or not."""
        with self._turn():
            for path in self.folder.glob("*.claim"):
                if path.read_bytes() in (b"", b"%d" % worker):  # empty: its worker died as it wrote it
                    path.unlink()

    def note_deaths(self, counts: Mapping[str, int]) -> None:
        """Let whoever claims from now on know how many workers died with which rows in hand."""
        write_bytes(self.folder / DEATHS, json.dumps(counts).encode())

    def deaths(self) -> dict[str, int]:
        """Return what was noted last: uid in hex -> workers that died with the row in hand."""
        try:
            return {name: int(count) for name, count in json.loads((self.folder / DEATHS).read_bytes()).items()}
        except FileNotFoundError:
            return {}

    def is_claimed(self, unit: str) -> bool:
        """Tell whether a worker has a unit, or had it and has ended well."""
        return self._path(unit).exists()

    def _path(self, unit: str) -> Path:
        return self.folder / f"{unit}.claim"

    def _claim(self, unit: str, worker: int) -> bool:
        if self.is_claimed(unit):
            return False
        with self._turn():
            return create(self._path(unit), b"%d" % worker)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one process at a time make claims or free them; a process that dies lets go."""
        with open(self.folder / "turn", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
