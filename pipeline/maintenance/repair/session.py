"""One repair under way: what was found, what was made again and how, what was left and why; and the refusal of one that
would not make the same bytes, since settings, weights, packages or processor are others than a step was done with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from manifests.checksums import Watch, sha256_file
from manifests.files import FormatError, out_of_room
from manifests.findings import Finding
from manifests.manifest import Manifest
from manifests.weights import WeightsError
from manifests.working_copy import lead_to, move_over
from pipeline.execution.backends import RunnerOptions
from pipeline.execution.step import Runtime, Step
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.stages.manifest import versions
from pipeline.stages.registry import STAGES

STAGE_STEPS = {stage: tuple(step.name for step in steps) for stage, steps in STAGES.items()}
UNDONE = (OSError, FormatError, RecipeError, WeightsError)
"""What planning or doing a step raises where its own inputs are damaged and could not be repaired, or the recipe or
weights at hand do not let it work. Anything else is a defect, and no reason to leave a file."""


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
                lead_to(self.root, self.copy, name)
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
        return self.found[name].step in before or name.startswith(tuple(place for place in before if "/" in place))

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


class Refused(RecipeError):
    """What is at hand would not make the same bytes: other settings, weights or versions (exit code 2)."""


def same_settings(step: Step) -> None:
    """Raise Refused where the recipe or the weights at hand are not those that the step was done with."""
    own_key = step.own_key
    before = step.journal.note()
    if before is None or before["own_key"] == own_key:  # without a note the keys of its shards tell
        return
    now, then = json.loads(json.dumps(step.settings())), before["settings"]
    others = [
        f"{name}: got {now.get(name)!r}, wanted {then.get(name)!r}"
        for name in sorted({*now, *then})
        if now.get(name) != then.get(name)
    ]
    what = "; ".join(others) or f"weights or version: key {own_key[:16]}…, wanted {before['own_key'][:16]}…"
    raise Refused(
        f"repair: {step.name} was made with other settings than this recipe's ({what}); give the recipe it was made"
        " with (--recipe FILE)"
    )


def same_versions(stage: str, manifest: Manifest | None) -> None:
    """Raise Refused where packages or processor are not those of the manifest: the same bytes are promised for one set
    of versions."""
    if manifest is None:
        return
    now = versions()
    others = [
        f"{name}: got {now.get(name)}, wanted {then}"
        for name, then in manifest.versions.items()
        if now.get(name) != then
    ]
    if others:
        raise Refused(
            f"repair: {stage} was made with other versions ({'; '.join(others)}); install those, or add"
            " --other-versions to try: only files of the recorded sha256 are taken"
        )
