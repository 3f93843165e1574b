"""Run a stage: check everything first, do the steps that are not done, write the manifest, say what happened."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb

from filters.fetch.config import require_contact
from manifests.files import FormatError, digest_of, out_of_room, write_json
from manifests.journal import STEP, ShardRecord, records_of
from manifests.lineage import former
from manifests.manifest import Manifest, ManifestError, shard_list
from pipeline.execution.in_flight import Hands
from pipeline.execution.progress import Progress
from pipeline.execution.reuse import let_go, set_aside
from pipeline.execution.run_folder import locked, need_removals, write_recipe
from pipeline.execution.step import Runtime, Step, Unit
from pipeline.execution.supervisor import RunFailed, RunnerOptions, Supervisor, preflight
from pipeline.inputs.convert import with_tables
from pipeline.inputs.files import InputFile, claim, claimed, look_at_inputs
from pipeline.recipes.datasets import DATASETS
from pipeline.recipes.rules import files_behind, input_columns
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.stages.manifest import losses, print_summary, stage_figures, versions
from pipeline.stages.registry import STAGES
from pipeline.steps.fetch.retry import tell_retry

NEEDS = {"filter": None, "caption": "filter", "pretokenize": "filter"}


class TooManyLosses(RuntimeError):
    """The run ended, but lost more of its input than the recipe allows (exit code 3)."""


@dataclass(frozen=True)
class StageOptions:
    """How to run a stage: which steps of it, where, and whether only to say what would run."""

    runner: RunnerOptions = field(default_factory=RunnerOptions)
    steps: tuple[str, ...] = ()
    dry_run: bool = False
    retry: tuple[str, ...] = ()
    """Reasons of failed fetches that are asked again."""


@dataclass
class Done:
    """What the steps of one invocation did: units made and units that were done before."""

    made: int = 0
    before: int = 0
    started: float = field(default_factory=time.monotonic)


def stage_steps(recipe: Recipe, stage: str, runtime: Runtime) -> list[Step]:
    """Return the steps of a stage. Raises RecipeError for a stage that does not exist."""
    if stage not in STAGES:
        raise RecipeError(f"--stage {stage!r}: no such stage; choices: {', '.join(STAGES)}, all")
    return [step(recipe, recipe.root, runtime) for step in STAGES[stage]]


def run_stage(recipe: Recipe, stage: str, options: StageOptions, runtime: Runtime | None = None) -> Manifest | None:
    """Run a stage to its end and return its manifest, or None for a dry run or a part of the stage.

    Raises RecipeError before any work, RunFailed when the work cannot go on, TooManyLosses after it.
    """
    runtime = runtime or Runtime()
    steps = stage_steps(recipe, stage, replace(runtime, retry=options.retry if stage == "filter" else ()))
    chosen = _chosen(steps, options.steps)
    files = look_at_inputs(recipe) if stage == "filter" else []
    _need(recipe, stage)
    _contact(recipe, chosen)
    with clear_errors(), locked(recipe.root):
        need_removals(recipe.root)
        states = {step.name: _state(step) for step in steps}
        if stage == "filter":
            _check_claim(recipe, files, options.dry_run)
        for note in [note for step in chosen for note in step.notes()]:
            print(note)
        _announce(stage, states, chosen)
        if steps[0].runtime.retry:
            tell_retry(recipe.root, steps[0].runtime.retry)
        _need_steps(steps, chosen, states)
        _check_weights(chosen, states)
        if options.dry_run:
            return None
        preflight(
            [step for step in chosen[1:] if states[step.name] != "unchanged"]
        )  # the first loads its own before it works
        write_recipe(recipe)
        done = Done()
        for step in chosen:
            _need_whole(steps, chosen, step)
            _run_step(step, options.runner, done)
        if chosen != steps:
            print(
                f"{stage}: ran {', '.join(step.name for step in chosen)} alone; the manifest is written when all of its"
                " steps have run"
            )
            return None
        manifest = write_manifest(recipe, stage, steps)
    print_summary(recipe, manifest, done.made, done.before, time.monotonic() - done.started)
    _limit(recipe, manifest)
    return manifest


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn a full disk, wherever it shows, into a RunFailed that says how to go on; what is finished by then stays."""
    try:
        yield
    except (OSError, duckdb.Error) as error:
        if not out_of_room(error):
            raise
        raise RunFailed(
            f"no room left to write ({error}); make room and run the same command again: finished shards stay"
        ) from error


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
        _check_weights(steps, {step.name: _state(step) for step in steps})


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
    for before in (one for one in steps[: steps.index(step)] if one not in chosen):
        units = before.units()
        left = sum(before.journal.done(unit.name, unit.key) is None for unit in units)
        if left:
            raise RecipeError(
                f"--step {step.name}: {left} of {len(units)} shards of {before.name} are not done; choose it too"
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
    except (FormatError, ManifestError, OSError) as error:
        raise RecipeError(f"{stage}: cannot trust {path} ({error}); first: pipeline run --stage {before}") from error
    changed = [step.name for step in stage_steps(recipe, before, Runtime()) if settings_changed(step)]
    if changed:
        print(
            f"note: {before} ran here with other settings of {', '.join(changed)} than this recipe's; {stage} takes"
            " what it left"
        )


def _contact(recipe: Recipe, chosen: list[Step]) -> None:
    """Raise RecipeError where strangers' sites are about to be asked without a contact address."""
    own = DATASETS[recipe.input.dataset].local  # its pictures are here: nobody is asked
    if own or recipe.input.dataset.startswith("demo") or all(step.name != "fetch" for step in chosen):
        return
    try:
        require_contact(recipe.fetch)
    except ValueError as error:
        raise RecipeError(str(error)) from error


def settings_changed(step: Step) -> bool:
    """Tell whether a step was done with other settings than the recipe's, or is not done."""
    before = step.journal.note()
    return before is None or bool(before["settings"] != _plain(step.settings()))


def _plain(value: dict[str, Any]) -> Any:
    return json.loads(json.dumps(value))


def _state(step: Step) -> str:
    """Return whether a step is new, unchanged, or which of its settings changed. Checks its weights on the way."""
    own_key = step.own_key
    before = step.journal.note()
    if before is None:
        return "new"
    if before["own_key"] == own_key:
        return "unchanged"
    now = _plain(step.settings())
    names = sorted(name for name in {*now, *before["settings"]} if now.get(name) != before["settings"].get(name))
    return f"changed ({', '.join(names) or 'weights or version'})"


def _check_claim(recipe: Recipe, files: list[InputFile], dry_run: bool) -> None:
    lacking = Counter(theirs for file in files for theirs in file.missing(input_columns(recipe).values()))
    readable = sum(not file.fault for file in files)
    nowhere = sorted(name for name, count in lacking.items() if count == readable)
    if nowhere:
        print(f"warning: the input lacks {', '.join(nowhere)}: these columns are null")
    some = [f"{name} ({count} of {readable} files)" for name, count in sorted(lacking.items()) if count < readable]
    if some:
        print(f"warning: some files lack {', '.join(some)}: null there")
    for file in files:
        if file.fault:
            print(f"warning: {file.name}: {file.fault}; it is counted as a loss")
    if not dry_run:
        claim(recipe.root, with_tables(recipe, files))


def _announce(stage: str, states: dict[str, str], chosen: list[Step]) -> None:
    names = [step.name for step in chosen]
    touched = [name for name, state in states.items() if state != "unchanged"]
    if touched and touched != list(states):
        first = list(states).index(touched[0])
        follow = ", ".join(list(states)[first:])
        print(
            f"{stage}: {'; '.join(f'{name} {states[name]}' for name in touched)}; runs again: {follow}, where their"
            " input changes"
        )
    else:
        print(f"{stage}: {', '.join(names)}" + ("" if touched else " (nothing changed; unfinished shards run)"))


def _run_step(step: Step, options: RunnerOptions, done: Done) -> None:
    """Plan a step, run the units that are not done, drop what the plan no longer holds."""
    units = step.units()
    before: dict[str, ShardRecord] = {}
    for unit in units:
        record = step.journal.done(unit.name, unit.key)
        if record is not None:
            before[unit.name] = record
    pending = [unit for unit in units if unit.name not in before]
    if step.carries and pending:
        set_aside(
            step.root, step.name, [record for record in records_of(step.root, step.name) if record.shard not in before]
        )
    progress = Progress(step.name, len(units), len(before))
    do_units(step, pending, options, progress)
    step.journal.forget_others(unit.name for unit in units)
    let_go(step.root, step.name)
    note_step(step)
    done.made, done.before = done.made + len(pending), done.before + len(before)
    progress.show(last=True)


def do_units(step: Step, pending: Sequence[Unit], options: RunnerOptions, progress: Progress) -> None:
    """Do units of a step: in workers, or here where the step is one query. Raises RunFailed or RecipeError."""
    if pending and step.beam:
        Supervisor(step, options, progress).run(pending)
    for unit in pending if not step.beam else ():
        record = step.open().run(unit, Hands())
        step.journal.record(record)
        progress.add(record)


def note_step(step: Step) -> None:
    """Note under which settings a step was done last."""
    note = {"step": step.name, "own_key": step.own_key, "settings": _plain(step.settings())}
    write_json(step.journal.folder / STEP, note, sealed=True)


def write_manifest(recipe: Recipe, stage: str, steps: list[Step]) -> Manifest:
    """Put a stage's manifest together from its steps' journals and write it."""
    records = {step.name: records_of(recipe.root, step.name) for step in steps}
    figures = stage_figures(recipe, stage, records)
    weights = {(file.name, file.sha256): file.record() for step in steps for file in step.weights()}
    files = claimed(recipe.root) if stage == "filter" else []
    parents = [
        {
            "name": f"manifests/{before}.json",
            "digest": Manifest.read(recipe.root / "manifests" / f"{before}.json").digest,
        }
        for before in _parents(recipe, stage)
    ]
    own = [{"name": name, "sha256": sha256} for name, sha256 in files_behind(recipe)] if stage == "filter" else []
    manifest = Manifest(
        stage=stage,
        recipe_digest=digest_of([[step.name, step.version, step.settings()] for step in steps]),
        inputs=[file.record() for file in files if not file.fault] + [*parents, *own],
        weights=[weights[key] for key in sorted(weights)],
        shards=[entry for name, found in records.items() for entry in shard_list(name, found)],
        losses=losses(recipe.root, files),
        versions=versions(),
        parent=former(recipe.root, stage),
        **figures,
    )
    manifest.write(recipe.root)
    return manifest


def _parents(recipe: Recipe, stage: str) -> list[str]:
    if stage == "pretokenize" and (recipe.root / "manifests" / "caption.json").is_file():
        return ["filter", "caption"]
    return [before] if (before := NEEDS[stage]) else []


def _limit(recipe: Recipe, manifest: Manifest) -> None:
    """Raise TooManyLosses above `input.max_loss` of unreadable files, or of rows in broken row groups."""
    unreadable = sum(loss["kind"] == "file" for loss in manifest.losses)
    files = unreadable + len([entry for entry in manifest.inputs if "rows" in entry])
    rows = manifest.dropped.get("broken_row_group", 0)
    for what, lost, of in (("files", unreadable, files), ("rows", rows, manifest.rows_in)):
        if of and lost / of > recipe.input.max_loss:
            raise TooManyLosses(
                f"{manifest.stage}: lost {lost} of {of} {what}, more than input.max_loss = {recipe.input.max_loss}; the"
                " manifest names them"
            )
