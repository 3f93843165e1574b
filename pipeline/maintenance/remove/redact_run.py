"""Take rows out of a copy of a run: its input tables, every step's plan and outputs, leftovers, logs, manifests."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from manifests.files import FormatError, read_table
from manifests.in_threads import each
from manifests.journal import ShardRecord, records_of
from manifests.manifest import DERIVED, Manifest
from manifests.store import drop, is_remote
from manifests.tombstones import TOMBSTONES, read_tombstones
from manifests.verify import claims_of
from pipeline.execution.in_flight import InFlight
from pipeline.execution.redact_aside import redact_aside
from pipeline.execution.redact_later import forget, redact_logs, redact_plan, tables_and_tars
from pipeline.execution.redaction import DamagedFileError, RemovedRows, from_table, from_tar, holds
from pipeline.execution.shuffle import drop_scratch
from pipeline.execution.step import Runtime, Step, Unit, settings_changed
from pipeline.inputs.redact_table import blank_input
from pipeline.recipes.rules import input_columns
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.stages.manifest import stage_figures
from pipeline.stages.registry import STAGES
from pipeline.steps.captions import captions_of_before

STEPS = {stage: [step.name for step in steps] for stage, steps in STAGES.items()}


class UnsearchableFileError(DamagedFileError):
    """A file that no record names cannot be searched for rows; the message says to move it away."""


@dataclass
class Removal:
    """One removal under way in `copy`, a copy of the run at `root`: which rows go, whether near duplicates are
    promoted.

    `valid`: step -> shards that were done as planned, of steps done with the recipe's settings. `stages`: stage -> its
    manifest's digest before and after. `later`: shards that are to be made anew by the next run.
    """

    root: Path
    copy: Path
    recipe: Recipe
    runtime: Runtime
    removed: RemovedRows
    promotes: bool
    valid: dict[str, set[str]] = field(default_factory=dict)
    stages: dict[str, dict[str, str]] = field(default_factory=dict)
    later: list[str] = field(default_factory=list)

    def steps_of(self, stage: str) -> list[Step]:
        """Return the steps of a stage, at work in the copy."""
        return [step(self.recipe, self.copy, self.runtime) for step in STAGES[stage]]

    @property
    def steps(self) -> list[Step]:
        """Return the steps that have left anything, in order: shards, or the note that there was nothing to do, which
        the next run finds done where it is planned from the rows that stay."""
        steps = [step for stage in STAGES for step in self.steps_of(stage)]
        return [step for step in steps if records_of(self.copy, step.name) or _was_empty(step)]


def _was_empty(step: Step) -> bool:
    return not step.over_all_rows and bool((step.journal.note() or {}).get("empty"))


def note_valid(work: Removal) -> None:
    """Note which shards are done as planned. Raises RecipeError where who survives was decided by other settings than
    the recipe's."""
    for step in work.steps:
        if step.name == "caption" and captions_of_before(work.copy):
            continue  # what made them is no more: no plan leads to them, and no weights are asked for
        changed = settings_changed(step)
        if changed and step.over_all_rows:
            stage = next(stage for stage, names in STEPS.items() if step.name in names)
            raise RecipeError(
                f"{work.root}: {step.name} ran with other settings than recipe.toml's; end that first: pipeline run"
                f" --stage {stage}"
            )
        if not changed:
            units = step.units()
            work.valid[step.name] = {unit.name for unit in units if step.journal.done(unit.name, unit.key)}


def redact_run(work: Removal) -> None:
    """Take the rows out of everything in the copy, step after step, and put the manifests together again."""
    drop_scratch(work.root)
    blanked = blank_input(work.copy, input_columns(work.recipe), read_tombstones(work.copy))
    work.removed.counts.update({"manifests/input/*.parquet": blanked} if blanked else {})
    begun = work.steps
    for step in begun:
        _run_again(work, step) if step.over_all_rows else _redact_step(work, step)
    for name in (name for names in STEPS.values() for name in names if name not in {step.name for step in begun}):
        redact_plan(work.copy, name, work.removed)  # planned, and ended before the first shard was done
    redact_aside(work.copy, work.removed)
    _redact_leftovers(work)
    redact_logs(work.root, work.copy, work.removed)
    if work.removed.uids:
        (work.copy / "report.html").unlink(missing_ok=True)
        drop(work.copy / "recheck")  # it names rows, and is made again
    for stage in STAGES:
        _renew_manifest(work, stage)


def _run_again(work: Removal, step: Step) -> None:
    """Run a step that looks at all rows at once where what it reads has changed: it reads tombstones itself.

    Its key says nothing of near duplicates that are promoted.
    """
    records = {record.shard: record.key for record in records_of(work.copy, step.name)}
    for unit in step.units():  # none where the recipe asks for it no more
        if unit.key != records.get(unit.name) or work.promotes:
            step.journal.record(step.open().run(unit, InFlight()))
            step.journal.compact()


def _redact_step(work: Removal, step: Step) -> None:
    """Take the rows out of a step's plan and outputs; shards that were done as planned are so afterwards."""
    units = {unit.name: unit for unit in step.units()} if step.name in work.valid else None
    if units is None:
        redact_plan(work.copy, step.name, work.removed)
    gone, records = [], records_of(work.copy, step.name)
    for before, hit in zip(records, each(work.copy, partial(_may_be_hit, work), records), strict=True):
        redacted = _redacted(work, step, before) if hit else before
        planned = units is not None and before.shard in work.valid[step.name]
        record = _keyed(work, step, (units or {}).get(before.shard), redacted) if planned else redacted
        if record is None:
            gone.append(before)
        elif record != before:
            step.journal.record(record)
    forget(step, gone)
    step.journal.compact()


def _may_be_hit(work: Removal, record: ShardRecord) -> bool:
    """Tell whether a unit is to be looked at: of a run in a store its files are looked through here, in threads."""
    try:
        return not is_remote(work.copy) or any(holds(work.copy / file.path, work.removed) for file in record.files)
    except FormatError as error:
        raise DamagedFileError(str(error).replace(str(work.copy), str(work.root))) from error


def _redacted(work: Removal, step: Step, record: ShardRecord) -> ShardRecord:
    try:
        return step.redact(record, work.removed)
    except FormatError as error:
        raise DamagedFileError(str(error).replace(str(work.copy), str(work.root))) from error


def _keyed(work: Removal, step: Step, unit: Unit | None, record: ShardRecord) -> ShardRecord | None:
    """Return the record under the key that the planner asks for now, None of a shard that it asks for no more."""
    if unit is None:
        return None
    if not _as_planned(work, unit):
        work.later.append(f"{step.name} {unit.name}")
        return record
    return replace(record, key=unit.key)


def _as_planned(work: Removal, unit: Unit) -> bool:
    """Tell whether the plan differs from the one before by the removed rows alone; where a unit's rows depend on the
    rows of others (`anew`) nobody can say."""
    if unit.reads.get("anew"):
        return False
    name = unit.reads.get("plan")
    if not isinstance(name, str) or not (work.root / name).exists():
        return name is None
    old, new = (read_table(folder / name, ["uid"]) for folder in (work.root, work.copy))
    return bool(old.filter(pc.invert(work.removed.rows(old)))["uid"].equals(new["uid"]))


def _redact_leftovers(work: Removal) -> None:
    """Take the rows out of tables and tars that no record names: what was set aside, and what dead attempts left
    behind."""
    named = claims_of(work.copy, STEPS)
    for path in tables_and_tars(work.copy):
        name = path.relative_to(work.copy).as_posix()
        if name in named or name == TOMBSTONES:
            continue
        what = name.partition("/")[0].lstrip(".")
        try:
            (from_table if path.suffix == ".parquet" else from_tar)(path, work.removed, what)
        except (OSError, FormatError) as error:
            raise UnsearchableFileError(
                f"{work.root / name}: no record names it, and it cannot be searched ({error}); move it away"
            ) from error


def _renew_manifest(work: Removal, stage: str) -> None:
    """Write a stage's manifest anew where anything it lists has changed; it names its former digest as its parent."""
    path = work.copy / "manifests" / f"{stage}.json"
    if not path.exists():
        return
    old = Manifest.read(path)
    inputs = [{**entry, "digest": _digest_now(work, entry)} if "digest" in entry else entry for entry in old.inputs]
    new = replace(old, inputs=inputs, **stage_figures(work.steps_of(stage)))
    if _without_derived(new) == _without_derived(old):
        return
    new = replace(new, parent=old.digest)
    new.write(work.copy)
    work.stages[stage] = {"before": old.digest, "after": new.digest}


def _without_derived(manifest: Manifest) -> Manifest:
    """Return a manifest without the facts that its digest leaves out: one of before lacks them, and is no other."""
    return replace(manifest, facts={name: fact for name, fact in manifest.facts.items() if name not in DERIVED})


def _digest_now(work: Removal, entry: dict[str, Any]) -> Any:
    changed = work.stages.get(str(entry["name"]).removeprefix("manifests/").removesuffix(".json"), {})
    return changed["after"] if changed and entry["digest"] == changed["before"] else entry["digest"]
