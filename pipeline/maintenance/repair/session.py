"""One repair under way: what was found, what was made again and how, what was left and why."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from manifests.checksums import Watch
from manifests.files import out_of_room
from manifests.manifest import Manifest
from manifests.records import Finding
from manifests.weights import sha256_file
from manifests.working_copy import link, move_over
from pipeline.execution.backends import RunnerOptions
from pipeline.execution.step import Runtime
from pipeline.recipes.schema import Recipe
from pipeline.stages.registry import STAGES

STAGE_STEPS = {stage: tuple(step.name for step in steps) for stage, steps in STAGES.items()}
FAULTS = (OSError, ValueError, KeyError, TypeError, IndexError, AssertionError, duckdb.Error, pa.ArrowException)
"""What planning or running a step raises when its own inputs are damaged and could not be repaired."""


@dataclass(frozen=True)
class RepairOptions:
    """How to repair: workers, threads that verify, and whether to try with other versions than the manifest's."""

    runner: RunnerOptions = field(default_factory=RunnerOptions)
    jobs: int = 0
    other_versions: bool = False
    watch: Watch | None = None


@dataclass(frozen=True)
class Doubt:
    """A shard that was made again, of which no record says what it was. `files`: those that the folder holds otherwise,
    or not at all."""

    stage: str
    step: str
    record: str
    files: tuple[str, ...]


@dataclass
class Repair:
    """One repair under way: what was found, what was made again (path -> how), what was left (path -> why), what awaits
    a proof."""

    root: Path
    copy: Path
    recipe: Recipe
    runtime: Runtime
    options: RepairOptions
    found: dict[str, Finding]
    repaired: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    doubts: list[Doubt] = field(default_factory=list)

    def open(self, step: str | None = None) -> list[Finding]:
        """Return the findings of a step that are neither repaired nor left yet."""
        mine = [f for name, f in self.found.items() if name not in self.repaired and name not in self.left]
        return [f for f in mine if f.kind in ("missing", "damaged") and (step is None or f.step == step)]

    def needs(self, name: str) -> bool:
        """Tell whether a file is damaged or missing and nothing has been done about it."""
        return any(finding.path == name for finding in self.open())

    def give(self, name: str, how: str) -> None:
        """Put the copy's file in the damaged one's place, or say what stands in the way. Raises OSError for a full
        disk."""
        try:
            move_over(self.copy, self.root, name)
        except OSError as error:
            says = self.line(error)
            self.left[name] = f"made again, but it cannot be put in its place ({error.strerror or says})"
        else:
            self.repaired[name] = how

    def leave(self, names: Sequence[str], why: str) -> None:
        """Say why files stay as they are."""
        self.left.update(
            {name: why for name in names if name in self.found and name not in self.repaired and name not in self.left}
        )

    def restore(self, names: Sequence[str]) -> None:
        """Let the copy lead to the run's files again: what later steps read is what the run holds."""
        for name in names:
            if (name not in self.found or name in self.repaired) and (self.root / name).exists():
                link(self.root / name, self.copy / name)
            else:
                (self.copy / name).unlink(missing_ok=True)

    def sha256(self, name: str) -> str:
        """Return the sha256 of a file of the run as it is now, or nothing where it cannot be read."""
        try:
            return sha256_file(self.root / name)
        except OSError:
            return ""

    def behind(self, step: str) -> str:
        """Return a file that could not be repaired and that this step builds on, or nothing."""
        before = ["manifests/input.json"]
        for stage, steps in STAGE_STEPS.items():
            for name in steps:
                if name == step:
                    before.append(f"manifests/plan/{step}/")
                    return next((lost for lost in self.left if self._lost(lost) and self._is_of(lost, before)), "")
                before.append(name)
            before.append(f"manifests/{stage}.json")
        return ""

    def _lost(self, name: str) -> bool:
        return name in self.found and self.found[name].kind in ("missing", "damaged")

    def _is_of(self, name: str, before: Sequence[str]) -> bool:
        return self.found[name].step in before or name.startswith(tuple(one for one in before if "/" in one))

    def line(self, error: BaseException) -> str:
        """Return the first line of an error, with the run folder's name in the place of the copy's.

        A full disk is no fault of one file: the error is raised again.
        """
        if out_of_room(error):
            raise error
        said = (str(error).splitlines() or [""])[0].replace(str(self.copy), str(self.root))[:300]
        return said if isinstance(error, (OSError, ValueError)) and said else f"{type(error).__name__}: {said}"


def stage_of(step: str) -> str:
    """Return the stage that a step belongs to."""
    return next(stage for stage, steps in STAGE_STEPS.items() if step in steps)
