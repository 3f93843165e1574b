"""Repair a run folder: make just the damaged files again from their inputs, byte for byte, and touch nothing else."""

from collections.abc import Sequence
from pathlib import Path

from manifests.checksums import sha256_file
from manifests.files import read_json
from manifests.findings import Finding
from manifests.journal import STEP, records_of
from manifests.layout import FETCH_SETTINGS, PLAN
from manifests.records import read_records
from manifests.verify import Report, verify_run
from manifests.working_copy import working_copy
from pipeline.execution.errors import clear_errors
from pipeline.execution.run_folder import locked
from pipeline.execution.step import Runtime, Step, Unit, note_step
from pipeline.maintenance.repair.derived import mend_derived
from pipeline.maintenance.repair.journals import end_journal, mend_journal
from pipeline.maintenance.repair.records import mend_digests, mend_inputs, mend_manifest, mend_recipe, mend_removals
from pipeline.maintenance.repair.session import (
    STAGE_STEPS,
    UNDONE,
    Repair,
    RepairOptions,
    same_settings,
    same_versions,
    stage_of,
)
from pipeline.maintenance.repair.set_aside import drop_damaged
from pipeline.maintenance.repair.shards import make_shards
from pipeline.recipes.schema import Recipe
from pipeline.stages.registry import STAGES
from pipeline.steps.captions import captions_of_before

NO_MORE = (
    "captions of before there was a judge: nothing makes them again byte for byte; put a copy back, or pipeline run"
    " --stage caption makes and judges them anew"
)

__all__ = ["STAGE_STEPS", "Repair", "RepairOptions", "repair_run"]


def repair_run(root: Path, recipe: Recipe, runtime: Runtime, options: RepairOptions) -> tuple[Report, Repair | None]:
    """Repair the run folder at `root`; return what verify found, and what was done (None: nothing was wrong).

    Nothing is replaced but by bytes of the recorded sha256; a kill at any time leaves the folder as it was or better.
    Raises Refused, RecipeError or WeightsError before any work when the same bytes could not come out, RunFailed for a
    full disk.
    """
    with clear_errors(root), locked(root):
        report = verify_run(root, STAGE_STEPS, options.jobs, options.watch)
        if not report.wrong:
            return report, None
        findings = {
            finding.path: finding for finding in reversed(report.wrong)
        }  # of two the first: damaged, rather than stale
        broken = [name for name, finding in findings.items() if finding.kind in ("missing", "damaged", "foreign")]
        with working_copy(root, broken) as copy:
            inside = recipe.model_copy(update={"output": recipe.output.model_copy(update={"root": str(copy)})})
            work = Repair(
                root, copy, inside, runtime, options, findings, manifests=read_records(copy, STAGE_STEPS).manifests
            )
            _mend(work)
        return report, work


def _mend(work: Repair) -> None:
    """Make everything again, in the order in which a run makes it."""
    steps = {stage: [step(work.recipe, work.copy, work.runtime) for step in kinds] for stage, kinds in STAGES.items()}
    _leave_before(work)
    for stage in STAGES:
        _same_everything(work, stage, [step for step in steps[stage] if work.open(step.name)])
    mend_recipe(work)
    mend_removals(work)
    mend_inputs(work)
    for stage in STAGES:
        for step in steps[stage]:
            mend_derived(work, step)
            mend_journal(work, step)
            _step(work, stage, step)
        mend_manifest(work, stage)
        for step in steps[stage]:
            end_journal(work, step)
    mend_digests(work)
    drop_damaged(work)
    _rest(work)


def _leave_before(work: Repair) -> None:
    """Say of captions of a run of before there was a judge that nothing can make them again."""
    if captions_of_before(work.copy):
        journal = "manifests/journal/caption."  # the table and its copy, which are made of one another
        names = [finding.path for finding in work.open("caption") if not finding.path.startswith(journal)]
        work.leave(names, NO_MORE)


def _same_everything(work: Repair, stage: str, damaged: Sequence[Step]) -> None:
    """Raise Refused or WeightsError before any work where a damaged step's settings, weights or versions are others."""
    for step in damaged:
        same_settings(step)
    if damaged and not work.options.other_versions:
        same_versions(stage, work.manifests.get(stage) or next(iter(work.manifests.values()), None))


def _step(work: Repair, stage: str, step: Step) -> None:
    """Make a step's damaged plans, records and outputs again."""
    names = [finding.path for finding in work.open(step.name)]
    if not names:
        return
    try:
        units = {unit.name: unit for unit in step.units()}
    except UNDONE as error:
        work.leave(names, f"its step cannot be planned: {work.line(error)}")
        return
    _plans(work, step, units)
    if shards := sorted({finding.shard for finding in work.open(step.name) if finding.shard}):
        make_shards(work, stage, step, [(shard, units.get(shard)) for shard in shards])


def _plans(work: Repair, step: Step, units: dict[str, Unit]) -> None:
    """Take the step's plan and settings where they lead to the keys of its journal."""
    folder = f"manifests/plan/{step.name}/"
    settings = f"manifests/journal/{step.name}/{STEP}"
    records = records_of(work.copy, step.name)
    wrong = [record.shard for record in records if record.shard not in units or units[record.shard].key != record.key]
    note_step(step, empty=not units)
    for finding in work.open(step.name):
        if not (finding.path.startswith(folder) or finding.path in (settings, FETCH_SETTINGS)):
            continue
        if why := _unplanned(work, step.name, wrong, finding.path):
            work.leave([finding.path], why)
            continue
        work.give(finding.path, "planned anew")
        if finding.path == f"{folder}{PLAN}":  # its tables had no record meanwhile
            _plan_tables(work, folder)


def _unplanned(work: Repair, step: str, wrong: Sequence[str], path: str) -> str:
    """Say why a plan that was made anew is not taken, or nothing."""
    if wrong and (lost := work.behind(step)):
        return f"what it is planned from, {lost}, could not be repaired"
    again = f"first: pipeline run --stage {stage_of(step)}"
    if wrong:
        return (
            f"planned anew it is not what shard {wrong[0]} was made from: the run has gone on since, or has another"
            f" recipe now; {again}"
        )
    return "" if (work.copy / path).exists() else f"no plan leads to it now; {again}"


def _plan_tables(work: Repair, folder: str) -> None:
    """Move over the planned tables that differ from a plan that was damaged itself."""
    for name, sha256 in read_json(work.copy / folder / PLAN)["files"].items():
        path = work.root / folder / name
        if not path.exists() or sha256_file(path) != sha256:
            work.give(f"{folder}{name}", "planned anew")


def _rest(work: Repair) -> None:
    """Say of everything else why it stays."""
    for name, finding in work.found.items():
        if name in work.repaired or name in work.left:
            continue
        work.left[name] = _says(finding)


def _says(finding: Finding) -> str:
    if finding.kind == "foreign":
        return "repair deletes nothing; remove it if you do not need it"
    if finding.kind == "stale":
        return finding.says
    if finding.step == "train":
        return "a checkpoint cannot be made again byte for byte; the trainer goes on from the one before"
    return "nothing here says how to make it again"
