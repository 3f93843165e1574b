"""Run a stage: check everything first, do the steps that are not done, write the manifest, say what happened."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from filters.fetch.config import require_contact
from manifests.aside import ASIDE, UNDER_WAY
from manifests.files import FormatError
from manifests.journal import ShardRecord, records_of
from manifests.manifest import Manifest
from manifests.remote_path import snapshot
from manifests.weights import WeightsError
from pipeline.execution.backends import RunnerOptions
from pipeline.execution.engine import try_engine
from pipeline.execution.errors import clear_errors
from pipeline.execution.fallen import keep_fallen
from pipeline.execution.partial import sweep_partial
from pipeline.execution.planned import Keys, do_planned
from pipeline.execution.progress import Progress
from pipeline.execution.reuse import adopt, note_places, set_aside
from pipeline.execution.run_folder import locked, need_removals, write_recipe
from pipeline.execution.shuffle import make_needs, needs_of
from pipeline.execution.step import Runtime, Step, Unit, note_step, settings_changed, state_of
from pipeline.execution.supervisor import do_units, do_within, preflight
from pipeline.inputs.convert import with_tables
from pipeline.inputs.files import InputFile, look_at_inputs
from pipeline.inputs.find import known_digests
from pipeline.inputs.input_list import register_files
from pipeline.recipes.captions import captioners
from pipeline.recipes.datasets import DATASETS
from pipeline.recipes.lists import empty_exclusions, row_exclusions
from pipeline.recipes.rules import input_columns
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.stages.manifest import write_manifest
from pipeline.stages.registry import NEEDS, STAGES, stage_steps
from pipeline.steps.captions import captions_of_before
from pipeline.steps.fetch.retry import tell_retry

SEVERAL_SHARDS = ("encode", "t5")
"""Steps in which one row may stand in a shard of each tier: what one tier wants back another may hold."""


@dataclass(frozen=True)
class StageOptions:
    """How to run a stage: which steps of it, where, and whether only to say what would run."""

    runner: RunnerOptions = field(default_factory=RunnerOptions)
    steps: tuple[str, ...] = ()
    dry_run: bool = False
    retry: tuple[str, ...] = ()
    """Reasons of failed fetches that are asked again."""


@dataclass(frozen=True)
class Finished:
    """A stage that has ended: its manifest, units made now, units that were done before, seconds."""

    manifest: Manifest
    made: int
    before: int
    seconds: float


@dataclass
class Done:
    """What the steps of one invocation did: units made and units that were done before, and by step what was
    planned."""

    made: int = 0
    before: int = 0
    planned: dict[str, Keys] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)


def run_stage(recipe: Recipe, stage: str, options: StageOptions, runtime: Runtime | None = None) -> Finished | None:
    """Run a stage to its end and return what came of it, or None for a dry run or a part of the stage.

    Raises RecipeError before any work, RunFailed when the work cannot go on. Whether too much was lost is
    `check_losses`' business, once the user has seen the figures.
    """
    retry = options.retry if stage == "filter" else ()
    runtime = replace(runtime or Runtime(), lanes=options.runner.parallelism, retry=retry)
    steps = stage_steps(recipe, stage, runtime)
    chosen = _chosen(steps, options.steps)
    passed_over: list[str] = []
    files = look_at_inputs(recipe, passed_over) if stage == "filter" else []
    _tell(f"input: {note}" for note in passed_over)
    _need(recipe, stage)
    _contact(recipe, chosen)
    with clear_errors(recipe.root), _held(recipe.root, options.dry_run):
        need_removals(recipe.root)
        states = {step.name: state_of(step) for step in steps}
        if stage == "filter":
            _register_input(recipe, files, options.dry_run, ends=chosen == steps and not options.dry_run)
        empty = empty_exclusions(recipe) if stage == "filter" else []
        _tell([*empty, *(note for step in chosen for note in step.notes())])
        _announce(stage, states, chosen)
        if retry:
            tell_retry(recipe.root, retry)
        _need_steps(steps, chosen, states)
        _check_weights(chosen, states)
        if options.dry_run:
            return None
        # the first loads its own before it works
        preflight([step for step in chosen[1:] if states[step.name] != "unchanged"])
        write_recipe(recipe)
        _tell(try_engine(options.runner, recipe.root))
        done = _do_steps(steps, chosen, options.runner)
        if chosen != steps:
            print(
                f"{stage}: ran {', '.join(step.name for step in chosen)} alone; the manifest is written when all of its"
                " steps have run",
                file=sys.stderr,
            )
            return None
        manifest = write_manifest(recipe, stage, steps, done.planned)
    return Finished(manifest, done.made, done.before, time.monotonic() - done.started)


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        print(note, file=sys.stderr)


def _held(root: Path, dry_run: bool) -> AbstractContextManager[None]:
    """Hold the run folder; a dry run leaves nothing where no run has been."""
    is_run = any((root / name).exists() for name in (".lock", "manifests"))
    return nullcontext() if dry_run and not is_run else locked(root)


def _do_steps(steps: list[Step], chosen: list[Step], options: RunnerOptions) -> Done:
    """Do the chosen steps of a stage in order. Raises RecipeError where one builds on shards that are not done."""
    done = Done()
    for step in chosen:
        _need_whole(steps, chosen, step)
        _run_step(step, options, done)
    return done


def _chosen(steps: list[Step], names: Sequence[str]) -> list[Step]:
    unknown = [name for name in names if name not in [step.name for step in steps]]
    if unknown:
        raise RecipeError(
            f"--step {unknown[0]!r}: no such step in this stage; choices: {', '.join(step.name for step in steps)}"
        )
    return [step for step in steps if not names or step.name in names]


def check_ahead(recipe: Recipe, stages: Sequence[str]) -> None:
    """Raise WeightsError before the first of several stages works, where weights would stop a later one."""
    for stage in stages:
        steps = stage_steps(recipe, stage, Runtime())
        _check_weights(steps, {step.name: state_of(step) for step in steps})


def _check_weights(steps: list[Step], states: dict[str, str]) -> None:
    """Let each step that has not ended with these weights look into them."""
    for step in steps:
        if states[step.name] != "unchanged":
            step.check()


def _need_steps(steps: list[Step], chosen: list[Step], states: dict[str, str]) -> None:
    """Raise RecipeError where a chosen step builds on one that has not run, or ran with other settings, and is not
    chosen too."""
    for number, step in enumerate(steps):
        for before in steps[:number] if step in chosen else ():
            if before not in chosen and states[before.name] != "unchanged":
                what = "has not run" if states[before.name] == "new" else f"is {states[before.name]}"
                raise RecipeError(
                    f"--step {step.name}: {before.name} {what} in {step.root}; choose it too: --step"
                    f" {before.name},{step.name}"
                )


def _need_whole(steps: list[Step], chosen: list[Step], step: Step) -> None:
    """Raise RecipeError where a step before this one, not chosen, has shards to do: rows without its results would get
    a wrong fate."""
    for before in (earlier for earlier in steps[: steps.index(step)] if earlier not in chosen):
        units = before.units()
        pending = sum(before.journal.done(unit.name, unit.key) is None for unit in units)
        if pending:
            raise RecipeError(
                f"--step {step.name}: {pending} of {len(units)} shards of {before.name} are not done; choose it too"
            )


def _need(recipe: Recipe, stage: str) -> None:
    """Raise RecipeError when the stage before has not run; say so when it ran with other rules than this recipe's."""
    before = NEEDS[stage]
    if before is None:
        return
    path = recipe.root / "manifests" / f"{before}.json"
    try:
        Manifest.read(path)
    except FileNotFoundError as error:
        raise RecipeError(
            f"{stage}: {before} has not run in {recipe.root}; first: pipeline run --stage {before}"
        ) from error
    except (OSError, FormatError) as error:
        raise RecipeError(f"{stage}: cannot trust {path} ({error}); first: pipeline run --stage {before}") from error
    _tell(_left_by(recipe, before, stage))
    if stage == "pretokenize" and captioners(recipe):
        if captions_of_before(recipe.root):
            _tell(
                [
                    f"note: captions here are of before there was a judge: {stage} packs them as they are; pipeline run"
                    " --stage caption sets them aside and makes and judges them anew"
                ]
            )
        elif (recipe.root / "manifests" / "caption.json").is_file():
            _tell(_left_by(recipe, "caption", stage))
        else:
            _tell([f"warning: tiers ask for captions, and caption has not run in {recipe.root}: {stage} packs none"])


def _left_by(recipe: Recipe, before: str, stage: str) -> list[str]:
    """Return a note where a stage ran with other settings than this recipe's: the next one takes what it left."""
    try:
        changed = [step.name for step in stage_steps(recipe, before, Runtime()) if settings_changed(step)]
    except WeightsError as error:
        return [f"note: whether {before} ran here as this recipe says cannot be told ({error})"]
    said = f"{', '.join(changed)} than this recipe's; {stage} takes what it left"
    return [f"note: {before} ran here with other settings of {said}"] if changed else []


def _contact(recipe: Recipe, chosen: list[Step]) -> None:
    """Raise RecipeError where strangers' sites are about to be asked without a contact address."""
    own = DATASETS[recipe.input.dataset].local  # its pictures are here: nobody is asked
    if own or recipe.input.dataset.startswith("demo") or all(step.name != "fetch" for step in chosen):
        return
    try:
        require_contact(recipe.fetch)
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _register_input(recipe: Recipe, files: list[InputFile], dry_run: bool, *, ends: bool) -> None:
    """Say what of the input cannot be read, and tie the run folder to the rest. `ends`: the stage's summary will name
    the files that are lost, so that here they are counted alone."""
    lacking = Counter(theirs for file in files for theirs in file.missing(input_columns(recipe).values()))
    readable = sum(not file.fault for file in files)
    nowhere = sorted(name for name, count in lacking.items() if count == readable)
    if nowhere:
        print(f"warning: the input lacks {', '.join(nowhere)}: these columns are null", file=sys.stderr)
    partly = [f"{name} ({count} of {readable} files)" for name, count in sorted(lacking.items()) if count < readable]
    if partly:
        print(f"warning: some files lack {', '.join(partly)}: null there", file=sys.stderr)
    for column, names in sorted(_unread(files).items()):
        more = f" and {len(names) - 1:,} more files" if len(names) > 1 else ""
        print(f"warning: {names[0]}{more}: no value can be read of column {column}: null there", file=sys.stderr)
    lost = [file for file in files if file.fault]
    for file in () if ends else lost:
        print(f"warning: {file.name}: {file.fault}; it is counted as a loss", file=sys.stderr)
    if lost and ends:
        print(
            f"warning: {len(lost):,} of {len(files):,} input files cannot be read; the summary names them",
            file=sys.stderr,
        )
    known = known_digests(recipe.root)
    texts = [file for file in files if file.raw == "text" and file.seen not in known]
    if texts and not dry_run:
        print(f"input: {len(texts):,} tables in text are read into manifests/input/, once", file=sys.stderr)
    if not dry_run:
        register_files(recipe.root, with_tables(recipe, files))


def _unread(files: list[InputFile]) -> dict[str, list[str]]:
    """Return column with its type -> the files in which it has that type, which cannot be read."""
    found: dict[str, list[str]] = {}
    for file in files:
        for column in file.unread:
            found.setdefault(column, []).append(file.name)
    return found


def _announce(stage: str, states: dict[str, str], chosen: list[Step]) -> None:
    names = [step.name for step in chosen]
    touched = [name for name, state in states.items() if state != "unchanged"]
    if touched and touched != list(states):
        first = list(states).index(touched[0])
        follow = ", ".join(list(states)[first:])
        print(
            f"{stage}: {'; '.join(f'{name} {states[name]}' for name in touched)}; runs again: {follow}, where their"
            " input changes",
            file=sys.stderr,
        )
    else:
        print(
            f"{stage}: {', '.join(names)}" + ("" if touched else " (nothing changed; unfinished shards run)"),
            file=sys.stderr,
        )


def _keep_earlier(step: Step, before: Mapping[str, ShardRecord], pending: Sequence[Unit]) -> None:
    """Set the shards that the plan makes anew or holds no more aside, and note for the workers where rows lie."""
    replaced = [record for record in records_of(step.root, step.name) if record.shard not in before]
    _tell([*set_aside(step.root, step.name, replaced), *adopt(step.root, step.name)])
    if pending and step.name in SEVERAL_SHARDS:  # linked until the step ends: rows of theirs may be wanted again
        set_aside(step.root, step.name, list(before.values()))
    written = step.journal.written()
    damaged = [unit.name for unit in pending if unit.name in written and written[unit.name] is None]
    if damaged:
        print(
            f"warning: {step.name}: the records of {len(damaged):,} shards, such as {damaged[0]}, are damaged: they are"
            f" made anew; instead, pipeline repair {step.root} may prove what is there",
            file=sys.stderr,
        )
    if pending:
        step.prepare(pending)
        note_places(step.root, step.name, {*step.alike(), *(unit.reads["made_by"] for unit in pending)})


def _heal(step: Step) -> None:
    """Bring the tables of records that the step, and those that it plans from, go on from in order.

    Raises RecipeError where records of what was paid for cannot be read: repair proves what is there.
    """
    for one in (*needs_of(step), step):
        try:
            _tell(filter(None, [one.journal.heal()]))
        except FormatError as error:
            if one.carries:
                raise RecipeError(
                    f"{one.name}: the records of its shards, and their copy, are damaged ({error}); first: pipeline"
                    f" repair {one.root}"
                ) from error
            _tell([f"warning: {one.name}: the records of its shards are damaged: they are made anew ({error})"])


def _lost(step: Step, units: Sequence[Unit]) -> list[str]:
    """Say that a step which has ended here has no record left: to delete them is how a user has all made anew, and an
    accident costs as much."""
    journal = step.journal
    note = journal.note()
    if (
        not units
        or note is None
        or note.get("empty")
        or any(path.exists() for path in journal.tables)
        or journal.written()
    ):
        return []
    return [
        f"warning: {step.name}: it ended here before, and no record of its shards is left: {len(units):,} shards are"
        f" made anew; instead, pipeline repair {step.root} may prove what is there"
    ]


def _keys(units: Sequence[Unit]) -> Keys:
    return {unit.name: unit.key for unit in units}


def _done_before(step: Step, units: Sequence[Unit]) -> dict[str, ShardRecord]:
    """Return unit -> record of those that are done: nobody else writes now, so that listings tell what is there."""
    with snapshot():
        records = {unit.name: step.journal.done(unit.name, unit.key) for unit in units}
    return {name: record for name, record in records.items() if record is not None}


def _run_step(step: Step, options: RunnerOptions, done: Done) -> None:
    """Plan a step, run the units that are not done, set aside what the plan no longer holds."""
    within, grouped = partial(do_within, options=options), options.runner != "local"
    _heal(step)
    make_needs(step, within, grouped)
    units = step.units()
    _tell([*_lost(step, units), *step.plan_notes(units)])
    before = _done_before(step, units)
    pending = [unit for unit in units if unit.name not in before]
    if step.carries:
        _keep_earlier(step, before, pending)
    if pending:
        step.bring(pending, within, grouped)
    progress = Progress(step.name, len(units), len(before), noun=step.noun)
    do_planned(step, units, pending, partial(do_units, options=options, progress=progress))
    done.planned[step.name] = _keys(units)
    step.journal.forget_others(unit.name for unit in units)
    step.journal.compact()
    if step.carries and any((step.root / place / step.name).exists() for place in (ASIDE, UNDER_WAY)):
        lists = row_exclusions(step.recipe)
        _tell(keep_fallen(step.root, step.name, step.made_from, lists, step.stand_ins))
    note_step(step, empty=not units)
    sweep_partial(step.root, step.name)
    every = [other for stage in STAGES for other in stage_steps(step.recipe, stage, step.runtime)]
    if told := step.settle(every):  # rows went out of shards that had ended, which have other keys now
        _tell(told)
        done.planned.update({one.name: _keys(one.units()) for one in every if one.name in done.planned})
    done.made, done.before = done.made + len(pending), done.before + len(before)
    progress.show(last=True)
