"""Repair a run folder: make just the damaged files again from their inputs, byte for byte, and touch nothing else."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import tomli_w

from manifests.files import FormatError, read_json, write_bytes, write_json
from manifests.integrity import Report, verify_run
from manifests.manifest import DIGESTS, Journal, Manifest, ManifestError, ShardRecord, read_digests
from manifests.measure import Watch
from manifests.recipe_file import headed, read_headed
from manifests.records import DIGESTS_PATH, STEP, Finding, read_records
from manifests.weights import sha256_file
from pipeline.folder import locked
from pipeline.inputs import claim, look_at_inputs
from pipeline.plans import PLAN
from pipeline.progress import Progress
from pipeline.recipe import Recipe, RecipeError
from pipeline.registry import STAGES
from pipeline.repair_checks import same_settings, same_versions
from pipeline.runners import RunFailed, RunnerOptions
from pipeline.salvage import carry_pairs, changed, recorded
from pipeline.shadow import link, move_over, shadow_of
from pipeline.stages import do_units, note_step, write_manifest
from pipeline.steps import Runtime, Step, Unit, records_of

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


@dataclass
class Repair:
    """One repair under way: what was found, what was made again (path -> how), what was left (path -> why)."""

    root: Path
    shadow: Path
    recipe: Recipe
    runtime: Runtime
    options: RepairOptions
    found: dict[str, Finding]
    repaired: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)

    def open(self, step: str | None = None) -> list[Finding]:
        """Return the findings of a step that are neither repaired nor left yet."""
        mine = [f for name, f in self.found.items() if name not in self.repaired and name not in self.left]
        return [f for f in mine if f.kind in ("missing", "damaged") and (step is None or f.step == step)]

    def needs(self, name: str) -> bool:
        """Tell whether a file is damaged or missing and nothing has been done about it."""
        return any(finding.path == name for finding in self.open())

    def give(self, name: str, how: str) -> None:
        """Put the shadow's file in the damaged one's place."""
        move_over(self.shadow, self.root, name)
        self.repaired[name] = how

    def leave(self, names: Sequence[str], why: str) -> None:
        """Say why files stay as they are."""
        self.left.update({name: why for name in names if name in self.found and name not in self.repaired})


def recipe_values(root: Path) -> dict[str, Any] | None:
    """Return the resolved recipe that the run folder holds, from whichever of its two copies is whole."""
    try:
        return read_headed(root / "recipe.toml")
    except (OSError, FormatError):
        pass
    try:
        return dict(read_json(root / "manifests" / "recipe.json")["recipe"])
    except (OSError, FormatError, KeyError, TypeError):
        return None


def repair_run(root: Path, recipe: Recipe, runtime: Runtime, options: RepairOptions) -> tuple[Report, Repair | None]:
    """Repair the run folder at `root`; return what verify found, and what was done (None: nothing was wrong).

    Nothing is replaced but by bytes of the recorded sha256; a kill at any time leaves the folder as it was or better.
    Raises Refused, RecipeError or WeightsError before any work when the same bytes could not come out.
    """
    with locked(root):
        report = verify_run(root, STAGE_STEPS, options.jobs, options.watch)
        if not report.wrong:
            return report, None
        found = {finding.path: finding for finding in report.wrong}
        broken = [name for name, finding in found.items() if finding.kind in ("missing", "damaged", "foreign")]
        with shadow_of(root, broken) as shadow:
            inside = recipe.model_copy(update={"output": recipe.output.model_copy(update={"root": str(shadow)})})
            work = Repair(root, shadow, inside, runtime, options, found, manifests=read_records(shadow, STAGE_STEPS).manifests)
            _same_everything(work)
            _recipe(work)
            _inputs(work)
            for stage, steps in STAGES.items():
                for step in steps:
                    _step(work, stage, step(inside, shadow, runtime))
                _manifest(work, stage)
            _digests(work)
            _rest(work)
        return report, work


def _same_everything(work: Repair) -> None:
    """Raise Refused or WeightsError before any work where a damaged step's settings, weights or versions are others."""
    for stage, steps in STAGES.items():
        for step in steps:
            if work.open(step.name):
                same_settings(step(work.recipe, work.shadow, work.runtime))
                if not work.options.other_versions:
                    same_versions(stage, work.manifests.get(stage) or next(iter(work.manifests.values()), None))


def _recipe(work: Repair) -> None:
    """Write the recipe again from its copy, or the copy from it."""
    text, copy = "recipe.toml", "manifests/recipe.json"
    if work.needs(text) and (work.shadow / copy).exists():
        write_bytes(work.shadow / text, headed(tomli_w.dumps(read_json(work.shadow / copy)["recipe"]).encode()))
        work.give(text, f"from {copy}")
    if work.needs(copy) and (work.shadow / text).exists():
        write_json(work.shadow / copy, {"recipe": read_headed(work.shadow / text)}, sealed=True)
        work.give(copy, f"from {text}")
    work.leave([text, copy], "it and its copy are damaged both; run a stage again with your recipe to write them anew")


def _inputs(work: Repair) -> None:
    """Read the input again, and take the list of its files where it is the one that filter recorded."""
    name = "manifests/input.json"
    if not work.needs(name):
        return
    try:
        files = look_at_inputs(work.recipe)
    except (RecipeError, OSError) as error:
        work.leave([name], f"the input cannot be read again: {error}")
        return
    manifest = work.manifests.get("filter")
    wanted = None if manifest is None else [entry for entry in manifest.inputs if "rows" in entry]
    if wanted is not None and [file.record() for file in files if not file.fault] != wanted:
        work.leave([name], f"the input is not what it was: got {len(files)} files, manifests/filter.json names {len(wanted)} or others")
        return
    claim(work.shadow, files)
    step = STAGES["filter"][0](work.recipe, work.shadow, work.runtime)
    keys = {unit.key for unit in step.units()}
    if others := [record.shard for record in records_of(work.shadow, step.name) if record.key not in keys]:
        work.leave([name], f"the input, read again, is not what shard {others[0]} of {step.name} was made from")
        (work.shadow / name).unlink()
        return
    work.give(name, "from the input files")


def _step(work: Repair, stage: str, step: Step) -> None:
    """Make a step's damaged plans, records and outputs again."""
    names = [finding.path for finding in work.open(step.name)]
    if not names:
        return
    try:
        units = {unit.name: unit for unit in step.units()}
    except FAULTS as error:
        work.leave(names, f"its step cannot be planned: {_line(error)}")
        return
    _plans(work, step, units)
    if shards := sorted({finding.shard for finding in work.open(step.name) if finding.shard}):
        _shards(work, stage, step, [(shard, units.get(shard)) for shard in shards])


def _plans(work: Repair, step: Step, units: dict[str, Unit]) -> None:
    """Take the step's plan and settings where they lead to the keys of its journal."""
    folder = f"manifests/plan/{step.name}/"
    settings = f"manifests/journal/{step.name}/{STEP}"
    records = [record for path in step.journal.folder.glob("*.json") if (record := step.journal.get(path.stem)) is not None]
    wrong = [record.shard for record in records if record.shard not in units or units[record.shard].key != record.key]
    note_step(step)
    for finding in work.open(step.name):
        if not (finding.path.startswith(folder) or finding.path == settings):
            continue
        if wrong or not (work.shadow / finding.path).exists():
            work.leave(
                [finding.path], f"planned anew it is not what shard {wrong[0]} was made from" if wrong else "no plan leads to it now"
            )
            continue
        work.give(finding.path, "planned anew")
        if finding.path == f"{folder}{PLAN}":  # its tables had no record meanwhile
            _plan_tables(work, folder)


def _plan_tables(work: Repair, folder: str) -> None:
    """Move over the planned tables that differ from a plan that was damaged itself."""
    for name, sha256 in read_json(work.shadow / folder / PLAN)["files"].items():
        path = work.root / folder / name
        if not path.exists() or sha256_file(path) != sha256:
            work.give(f"{folder}{name}", "planned anew")


def _shards(work: Repair, stage: str, step: Step, shards: list[tuple[str, Unit | None]]) -> None:
    """Run the units of damaged shards in the shadow, and take what has the recorded sha256."""
    todo: list[Unit] = []
    for shard, unit in shards:
        record = step.journal.get(shard)
        if why := _obstacle(work, shard, unit, record):
            work.leave([f.path for f in work.open(step.name) if f.shard == shard], why)
        elif unit is not None:
            (step.journal.folder / f"{shard}.json").unlink(missing_ok=True)
            todo.append(carry_pairs(work.root, work.shadow, unit) if step.name == "fetch" else unit)
    progress, failure = Progress(step.name, len(todo)), ""
    try:
        do_units(step, todo, work.options.runner, progress)
    except (RunFailed, *FAULTS) as error:
        failure = f"it could not be made again: {_line(error)}"
    if todo:
        progress.show(last=True)
    for unit in todo:
        _take(work, stage, step, unit.name, failure or "it could not be made again")


def _obstacle(work: Repair, shard: str, unit: Unit | None, record: ShardRecord | None) -> str:
    """Say why a shard cannot be made again, or nothing."""
    if unit is None:
        return f"the plan has no shard {shard} any more: the run was not ended with this recipe; run the stage again"
    if record is not None and record.key != unit.key:
        return f"what it is made from is not what it was: key {unit.key[:16]}…, wanted {record.key[:16]}…"
    lost = [value for value in unit.reads.values() if isinstance(value, str) and value in work.left]
    return f"what it is made from, {lost[0]}, is damaged and could not be repaired" if lost else ""


def _take(work: Repair, stage: str, step: Step, shard: str, failure: str) -> None:
    """Move a shard's files over where they are damaged in the run and whole in the shadow."""
    journal = f"manifests/journal/{step.name}/{shard}.json"
    made = step.journal.get(shard)
    before = None if journal in work.found else Journal(work.root, step.name).get(shard)
    wanted = _wanted(work, stage, step.name, shard, before)
    mine = [finding.path for finding in work.open(step.name) if finding.shard == shard]
    if made is None or not wanted:
        work.leave(mine, failure if made is None else "no record is left that says what it was; pipeline run makes it again")
    got = {file.path: file.sha256 for file in made.files} if made else {}
    for path, sha256 in wanted.items():
        if got.get(path) == sha256 and path in mine:
            work.give(path, f"{step.name} made it again")
        elif path in mine and made is not None:
            work.leave(
                [path],
                _other_bytes(work, step.name, shard, f"made again it has sha256 {got.get(path, 'none')[:16]}…, {sha256[:16]}… wanted"),
            )
    if journal in mine and made is not None and wanted:
        if got == wanted:
            work.give(journal, f"{step.name} made its shard again")
        else:
            work.leave([journal], "its shard, made again, is not what the manifest lists")
    _restore(work, [*got, *wanted, journal])


def _wanted(work: Repair, stage: str, step: str, shard: str, before: ShardRecord | None) -> dict[str, str]:
    """Return path -> sha256 of a shard's files: as journalled, else as the stage's manifest lists them."""
    if before is not None:
        return {file.path: file.sha256 for file in before.files}
    manifest = work.manifests.get(stage)
    entries = manifest.shards if manifest else []
    return {entry["path"]: entry["sha256"] for entry in entries if (entry["step"], entry["shard"]) == (step, shard)}


def _other_bytes(work: Repair, step: str, shard: str, says: str) -> str:
    if step != "fetch":
        return says
    old = recorded(work.root, shard, f"pairs/{shard}.parquet" in work.found)
    lost = changed(old, work.shadow / "pairs" / f"{shard}.parquet")
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    return f"{says}; not as they were fetched: {', '.join(lost[:5])}{more}" if lost else says


def _restore(work: Repair, names: Sequence[str]) -> None:
    """Let the shadow lead to the run's files again: what later steps read is what the run holds."""
    for name in names:
        if name not in work.found or name in work.repaired:
            link(work.root / name, work.shadow / name)
        else:
            (work.shadow / name).unlink(missing_ok=True)


def _manifest(work: Repair, stage: str) -> None:
    """Put a damaged manifest together again from whole journals, and take it when its digest is the recorded one."""
    name = f"manifests/{stage}.json"
    if not work.needs(name):
        return
    steps = [step(work.recipe, work.shadow, work.runtime) for step in STAGES[stage]]
    if lost := [path for path in work.left if any(path.startswith(f"manifests/journal/{step.name}/") for step in steps)]:
        work.leave([name], f"{lost[0]} could not be repaired")
        return
    wanted = _digest_of(work, stage)
    try:
        for step in steps:
            same_settings(step)
        made = write_manifest(work.recipe, stage, steps)
    except FAULTS as error:
        work.leave([name], f"it cannot be put together again: {_line(error)}")
        return
    if wanted and made.digest != wanted:
        work.leave([name], f"put together again its digest is {made.digest[:16]}…, {wanted[:16]}… wanted")
        (work.shadow / name).unlink()
        return
    work.give(name, "from the journals" + ("" if wanted else "; no record is left that says what its digest was"))
    work.manifests[stage] = made


def _digest_of(work: Repair, stage: str) -> str:
    """Return what a stage's digest was: from the list of digests, a later stage's manifest, or what is left of the manifest itself."""
    listed = {} if DIGESTS_PATH in work.found else read_digests(work.root)
    if stage in listed:
        return str(listed[stage]["digest"])
    for manifest in work.manifests.values():
        for entry in manifest.inputs:
            if entry.get("name") == f"manifests/{stage}.json":
                return str(entry["digest"])
    try:
        left = re.search(rb'"digest": "([0-9a-f]{64})"', (work.root / "manifests" / f"{stage}.json").read_bytes())
    except OSError:
        return ""
    return left[1].decode() if left else ""


def _digests(work: Repair) -> None:
    """List the digests again, from whole manifests."""
    if DIGESTS_PATH not in work.found:
        return
    entries = {}
    for stage in sorted(STAGES):
        path = work.root / "manifests" / f"{stage}.json"
        try:
            entries[stage] = {"digest": Manifest.read(path).digest, "sha256": sha256_file(path)}
        except (OSError, FormatError, ManifestError):
            continue
    write_json(work.shadow / "manifests" / DIGESTS, {"stages": entries}, sealed=True)
    work.give(DIGESTS_PATH, "from the manifests")


def _rest(work: Repair) -> None:
    """Say of everything else why it stays."""
    for name, finding in work.found.items():
        if name in work.repaired or name in work.left:
            continue
        work.left[name] = _says(finding)


def _says(finding: Finding) -> str:
    choices: dict[str, Callable[[], str]] = {
        "foreign": lambda: "repair deletes nothing; remove it if you do not need it",
        "stale": lambda: finding.says,
    }
    if finding.kind in choices:
        return choices[finding.kind]()
    if finding.step == "train":
        return "a checkpoint cannot be made again byte for byte; the trainer goes on from the one before"
    return "nothing here says how to make it again"


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
