"""Carry a worker's task from the supervisor to the worker process, and its error back."""

import importlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from manifests.files import parsing, write_bytes
from manifests.store import path_of
from pipeline.execution.step import Runtime, Step, Unit
from pipeline.recipes.load import parse_recipe

DONE, FAILED, MISUSED, NO_ROOM, OVER = 0, 1, 2, 28, 75
"""Exit codes of a worker process: NO_ROOM means that the disk is full, OVER that another run holds the folder."""


@dataclass(frozen=True)
class Job:
    """Units of one step (`module:class`) for one worker process. `token`: under which they are published (see
    run_token.py). `stall_s`: seconds at the same rows after which a worker on an engine ends itself; 0: none.
    `claims`: folder of the units of which the workers of this machine take one after another (see claims.py), in the
    place of `units`; "" without."""

    step: str
    root: str
    recipe: dict[str, Any]
    units: list[dict[str, Any]]
    in_flight: str
    crash_counts: dict[str, int] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)
    runner: str = "local"
    beam_options: list[str] = field(default_factory=list)
    token: str = ""
    stall_s: float = 0.0
    claims: str = ""

    def write(self, path: Path) -> None:
        """Write the job for a worker to read."""
        write_bytes(path, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read a job that `write` wrote. Raises FormatError for another file, OSError."""
        with parsing(path, "not a job"):
            return cls(**json.loads(path.read_text()))

    def make_step(self) -> Step:
        """Build the step again on the worker's side."""
        module, _, name = self.step.partition(":")
        step: type[Step] = getattr(importlib.import_module(module), name)
        return step(parse_recipe(self.recipe), path_of(self.root), Runtime(**self.runtime))

    def make_units(self) -> list[Unit]:
        """Build the units again on the worker's side."""
        return [Unit(**unit) for unit in self.units]


def error_path(in_flight: str) -> Path:
    """Return where a worker leaves its error for the supervisor."""
    return Path(in_flight).with_suffix(".error")
