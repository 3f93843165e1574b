"""Make the damaged shards of a step again in the copy, and take what is proved to be what it was."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from manifests.journal import Journal, ShardRecord
from manifests.shard_table import files_of
from manifests.store import is_remote
from pipeline.execution.errors import RunFailed
from pipeline.execution.progress import Progress
from pipeline.execution.reuse import note_places
from pipeline.execution.step import Step, Unit
from pipeline.execution.supervisor import do_units
from pipeline.maintenance.repair.recover_pairs import carry_pairs, changed, recorded
from pipeline.maintenance.repair.session import UNDONE, Doubt, Repair, stage_of
from pipeline.recipes.datasets import DATASETS

JOURNAL = "manifests/journal/{}/{}.json"


def make_shards(work: Repair, stage: str, step: Step, shards: Sequence[tuple[str, Unit | None]]) -> None:
    """Run the units of damaged shards in the copy, and take what has the recorded sha256."""
    todo: list[Unit] = []
    for shard, unit in shards:
        if why := _obstacle(work, step, shard, unit):
            work.leave([f.path for f in work.open(step.name) if f.shard == shard], why)
        elif unit is not None:
            local = DATASETS[work.recipe.input.dataset].local
            todo.append(carry_pairs(work.root, work.copy, unit, local) if step.name == "fetch" else unit)
    step.journal.forget([unit.name for unit in todo])
    if step.name == "fetch" and todo:
        note_places(work.copy, step.name, {str(unit.reads["made_by"]) for unit in todo})
    failures = _make(work, step, todo)
    for unit in todo:
        _take(work, stage, step, unit.name, failures.get(unit.name, "it could not be made again"))
    work.restore([path.relative_to(work.copy).as_posix() for path in step.journal.tables])


def _obstacle(work: Repair, step: Step, shard: str, unit: Unit | None) -> str:
    """Say why a shard cannot be made again, or nothing."""
    record = step.journal.get(shard)
    if step.name == "fetch" and (barred := _barred(work.root / "pairs", f"{shard}.tar")):
        return f"{barred} may not be read and written to: its pictures may be whole; allow it and repair again"
    if unit is not None and (record is None or record.key == unit.key):
        lost = [value for value in unit.reads.values() if isinstance(value, str) and value in work.left]
        return f"what it is made from, {lost[0]}, could not be repaired" if lost else ""
    if lost_before := work.behind(step.name):
        return f"what it is made from, {lost_before}, could not be repaired"
    what = f"the plan has no shard {shard}" if unit is None else "what it is made from is not what it was"
    return (
        f"{what}: the run has gone on since, or has another recipe now; first: pipeline run --stage"
        f" {stage_of(step.name)}"
    )


def _barred(folder: Path, tar: str) -> str:
    """Return what keeps this process from reading a shard of pairs that may be whole: nobody is asked for its pictures
    then. A store that lets nobody read raises instead."""
    if is_remote(folder):
        return ""
    if os.path.exists(folder) and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return "pairs/"
    return f"pairs/{tar}" if os.path.exists(folder / tar) and not os.access(folder / tar, os.R_OK) else ""


def _make(work: Repair, step: Step, todo: Sequence[Unit]) -> Mapping[str, str]:
    """Do the units, one by one where they fail together; return shard -> why it could not be made again."""
    if not todo:
        return {}
    progress = Progress(step.name, len(todo))
    failures: dict[str, str] = {}
    for batches in ([list(todo)], [[unit] for unit in todo]):
        failures = {unit.name: failures.get(unit.name, "") for unit in todo if step.journal.get(unit.name) is None}
        for units in batches if failures else ():
            _try(work, step, [unit for unit in units if unit.name in failures], progress, failures)
    progress.show(last=True)
    return failures


def _try(work: Repair, step: Step, units: Sequence[Unit], progress: Progress, failures: dict[str, str]) -> None:
    try:
        do_units(step, units, work.options.runner, progress)
    except (RunFailed, *UNDONE) as error:
        failures.update({unit.name: f"it could not be made again: {work.line(error)}" for unit in units})


def _take(work: Repair, stage: str, step: Step, shard: str, failure: str) -> None:
    """Move a shard's files over where they are damaged in the run and whole in the copy."""
    record = JOURNAL.format(step.name, shard)
    mine = [finding.path for finding in work.open(step.name) if finding.shard == shard]
    before = None if record in work.found else Journal(work.root, step.name).get(shard)
    expected = _expected(work, stage, step.name, shard, before)
    remade = step.journal.get(shard)
    got = {file.path: file.sha256 for file in remade.files} if remade else {}
    if remade is None:
        work.leave(mine, failure)
    elif not expected:
        _take_unrecorded(work, stage, step.name, record, got)
        return
    for path in [path for path in mine if path in expected and remade is not None]:
        if got.get(path) == expected[path]:
            work.give(path, f"{step.name} made it again")
        else:
            says = f"made again it has sha256 {got.get(path, 'none')[:16]}…, {expected[path][:16]}… wanted"
            work.leave([path], says + _as_fetched(work, step.name, shard, path))
    if work.needs(record) and got == expected:
        work.give(record, f"{step.name} made its shard again")
    work.leave([record], "its shard, made again, is not what the manifest lists")
    work.restore([*got, *expected, record])


def _take_unrecorded(work: Repair, stage: str, step: str, record: str, got: Mapping[str, str]) -> None:
    """Take the record of a shard that comes out as the folder holds it; what comes out otherwise stays in the copy
    until it is proved."""
    others = tuple(path for path, sha256 in got.items() if work.sha256(path) != sha256)
    if others:
        work.doubts.append(Doubt(stage, step, record, others))
    else:
        work.give(record, f"{step} made its shard again, just as the folder holds it")


def _expected(work: Repair, stage: str, step: str, shard: str, before: ShardRecord | None) -> dict[str, str]:
    """Return path -> sha256 of a shard's files: as journalled, else as the stage's manifest lists them."""
    if before is not None:
        return {file.path: file.sha256 for file in before.files}
    if (manifest := work.manifests.get(stage)) is None:
        return {}
    listed = files_of(manifest.shards, step, shard)
    return dict(zip(listed["path"].to_pylist(), listed["sha256"].to_pylist(), strict=True))


def _as_fetched(work: Repair, step: str, shard: str, path: str) -> str:
    """Say what became of pictures that the web does not give as it did, and how to go on with what it gives now."""
    if step != "fetch":
        return ""
    old = recorded(work.root, shard, f"pairs/{shard}.parquet" in work.found)
    lost = changed(old, work.copy / "pairs" / f"{shard}.parquet")
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    says = f"; not as they were fetched: {', '.join(lost[:5])}{more}" if lost else ""
    if path.startswith("ledger/") and not lost:
        says = "; what the attempts before the last met, and refusals said, is noted nowhere else"
    return (
        f"{says}. Put a copy of it back; or remove pairs/{shard}.tar and run filter, and the shard is fetched as the"
        " web is now"
    )


def settle_doubts(work: Repair, stage: str, proof: str) -> None:
    """Take the shards of a stage that had no record, where its manifest came out as it was; else leave them, and say
    how to go on."""
    for doubt in [doubt for doubt in work.doubts if doubt.stage == stage]:
        if proof:
            for path in (*doubt.files, doubt.record):
                work.give(path, f"{doubt.step} made it again, {proof}")
        else:
            says = (
                f"nothing says any more what its shard was, and {doubt.files[0]}, made again, is not what the folder"
                " holds"
            )
            work.leave([doubt.record], f"{says}; pipeline run --stage {stage} makes it anew")
            files = Journal(work.copy, doubt.step).get(doubt.record.rpartition("/")[2].removesuffix(".json"))
            work.restore([doubt.record, *(file.path for file in (files.files if files else ()))])
        work.doubts.remove(doubt)
