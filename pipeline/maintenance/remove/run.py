"""Remove rows from a run: every file that holds them is written anew, and tombstones keep them from coming back."""

import contextlib
import io
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from manifests.files import read_table, write_json
from manifests.journal import ShardRecord, records_of
from manifests.lineage import FOLDER, note_removal
from manifests.manifest import Manifest, shard_list
from manifests.plans import note_plan, plan_folder
from manifests.tombstones import KINDS, TOMBSTONES, Tombstones, read_tombstones, write_tombstones
from manifests.transaction import ASKED, NOTES, PENDING, Changes, changes, commit
from manifests.verify import claims_of, look_over
from manifests.weights import sha256_file
from manifests.working_copy import link, working_copy
from pipeline.execution.in_flight import InFlight
from pipeline.execution.run_folder import COPY, RECIPE, locked
from pipeline.execution.step import Runtime, Step, Unit, settings_changed
from pipeline.inputs.redact_table import blank_input
from pipeline.maintenance.remove.redact_file import RemovedRows, from_lines, from_table, from_tar
from pipeline.maintenance.remove.redact_shard import DamagedRun, Stray, redact_record
from pipeline.maintenance.remove.selectors import Selector, Unreadable, asked_for, hit_by
from pipeline.maintenance.remove.tombstone_rows import tombstones_of, urls_of
from pipeline.recipes.rules import input_columns
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.stages.manifest import stage_figures
from pipeline.stages.registry import STAGES
from pipeline.steps.decide import Decide
from pipeline.steps.dedup import Dedup
from pipeline.steps.pack import Pack

CARRIED = (".earlier", "logs")
"""Folders that no record names, and rows may stand in."""
RECIPES = (RECIPE, COPY)
"""Copies of one another, which hold no rows: one of them, or the option `--recipe`, is enough."""
STEPS = {stage: [step.name for step in steps] for stage, steps in STAGES.items()}


@dataclass
class Removal:
    """One removal under way: what is asked, what goes, and what each stage's digest was and is."""

    root: Path
    copy: Path
    recipe: Recipe
    runtime: Runtime
    gone: RemovedRows
    promotes: bool
    valid: dict[str, set[str]] = field(default_factory=dict)
    stages: dict[str, dict[str, str]] = field(default_factory=dict)
    later: list[str] = field(default_factory=list)

    @property
    def steps(self) -> list[Step]:
        """Return the steps that have left anything, in order."""
        made = [step(self.recipe, self.copy, self.runtime) for steps in STAGES.values() for step in steps]
        return [step for step in made if records_of(self.copy, step.name)]


@dataclass(frozen=True)
class Outcome:
    """What a removal did. `found`: selector -> rows of the input it named now; `known`: selectors that had a tombstone
    before."""

    found: dict[Selector, int]
    known: tuple[Selector, ...] = ()
    rows: int = 0
    uids: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    stages: dict[str, dict[str, str]] = field(default_factory=dict)
    later: tuple[str, ...] = ()
    record: str = ""


def remove_rows(
    root: Path, recipe: Recipe, runtime: Runtime, selectors: Sequence[Selector], promote: bool = False
) -> Outcome:
    """Remove every row that a selector names from the run at `root`; without one that has a tombstone nothing changes.

    All new files are whole before the first old one goes. A removal that was asked for before and is not at its end is
    done first. Raises RecipeError before any work, or while another run holds the folder, and DamagedRun for a run that
    is to be repaired first.
    """
    with locked(root, removing=True):
        unfinished = _unfinished(root)
        if unfinished[0] and unfinished != (list(selectors), promote):
            first = _remove(root, recipe, runtime, *unfinished)
            print(
                f"{root}: first ended a removal that was interrupted: {first.rows:,} rows of {first.uids:,} uids"
                f" {first.record}"
            )
        return _remove(root, recipe, runtime, selectors, promote)


def _unfinished(root: Path) -> tuple[list[Selector], bool]:
    """Return what a removal that is not at its end was asked for; what is asked now takes the place of what cannot be
    read."""
    try:
        return asked_for(root)
    except Unreadable as error:
        print(f"{error}: what is asked for now is done instead")
        return [], False


def _remove(root: Path, recipe: Recipe, runtime: Runtime, selectors: Sequence[Selector], promote: bool) -> Outcome:
    with _asking(root):
        _refuse_damage(root)
        before = read_tombstones(root)
        found = hit_by(selectors, root)
        known = _known(before, [one for one in selectors if not found[one]])
        promoted = known if promote and _barring(before, known) else {}
        if len(known) == len(selectors) and not promoted:
            (root / ASKED).unlink(missing_ok=True)
            return Outcome(dict.fromkeys(selectors, 0), tuple(known))
        write_json(
            root / ASKED, {"selectors": [[one.kind, one.value] for one in selectors], "promote": promote}, sealed=True
        )
        with working_copy(root, ()) as copy:
            inside = recipe.model_copy(update={"output": recipe.output.model_copy(update={"root": str(copy)})})
            work = Removal(root, copy, inside, runtime, _gone(root, found), bool(promoted))
            names = _all_of(root, copy)
            rows = tombstones_of(
                Pack(recipe, root, runtime), {one: found[one] for one in selectors if one not in known}, promote
            )
            outcome = _take_out(
                work,
                Outcome({one: len(found[one]) for one in selectors}, tuple(known)),
                rows,
                _promoted(before, promoted),
            )
            record = _record(work, outcome, promote)
            made = changes(root, copy, names)
            commit(root, copy, made)
        (root / ASKED).unlink(missing_ok=True)
    return replace(outcome, files=_by_folder(made), stages=work.stages, later=tuple(work.later), record=record)


def _gone(root: Path, found: Mapping[Selector, Collection[bytes]]) -> RemovedRows:
    uids = frozenset(uid for hit in found.values() for uid in hit)
    return RemovedRows(uids, urls_of(root, uids), frozenset(one.value for one in found if one.kind == "host"))


def _take_out(work: Removal, outcome: Outcome, rows: list[dict[str, Any]], before: list[dict[str, Any]]) -> Outcome:
    """Write the tombstones into the copy, those from before and `rows`, and take out what goes; return the outcome
    with its counts."""
    something = bool(work.gone.uids) or work.promotes
    if something:
        _look(work)
    write_tombstones(work.copy, [*before, *rows])
    if something:
        _excise(work)
    places = {(row["source"], row["source_row"]) for row in rows if row["uid"]}
    return replace(outcome, rows=len(places), uids=len(work.gone.uids), counts=dict(work.gone.counts))


def _refuse_damage(root: Path) -> None:
    """Raise DamagedRun where a file is missing, cut or damaged: rows would not be found, or not be taken out of it."""
    found = [one for one in look_over(root, STEPS) if one.path not in RECIPES]
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise DamagedRun(f"{root}: {found[0].path} is {found[0].kind} ({found[0].says}){more}")


@contextmanager
def _asking(root: Path) -> Iterator[None]:
    """Forget what was asked where it cannot be done and nothing was changed; a kill leaves it, and the removal is gone
    on with."""
    try:
        yield
    except Exception:
        if not any((root / PENDING / note).exists() for note in NOTES):
            (root / ASKED).unlink(missing_ok=True)
        raise


def _known(before: Tombstones, selectors: Sequence[Selector]) -> dict[Selector, None]:
    """Return those of the selectors that have a tombstone, in order."""
    uids = {uid.hex() for uid in before.uids.to_pylist()}
    values = {kind: set(before.values(kind).to_pylist()) for kind in KINDS}
    return {
        one: None for one in selectors if one.digest in values[one.kind] or (one.kind == "uid" and one.value in uids)
    }


def _is_of(selectors: Collection[Selector]) -> Callable[[dict[str, Any]], bool]:
    """Return what tells whether a tombstone is of a removed row that one of the selectors names."""
    values = {(one.kind, one.digest) for one in selectors}
    uids = {bytes.fromhex(one.value) for one in selectors if one.kind == "uid"}
    return lambda row: row["uid"] is not None and ((row["kind"], row["value_sha256"]) in values or row["uid"] in uids)


def _barring(before: Tombstones, selectors: Collection[Selector]) -> list[dict[str, Any]]:
    """Return the tombstones of these selectors that keep near duplicates out."""
    is_of = _is_of(selectors)
    return [row for row in before.table.to_pylist() if row["won"] and not row["promote"] and is_of(row)]


def _promoted(before: Tombstones, selectors: Collection[Selector]) -> list[dict[str, Any]]:
    """Return the tombstones; those of these selectors let near duplicates in from now on."""
    is_of = _is_of(selectors)
    return [{**row, "promote": row["promote"] or is_of(row)} for row in before.table.to_pylist()]


def _all_of(root: Path, copy: Path) -> list[str]:
    """Add what the copy leaves out and rows may stand in; return the paths of all its files."""
    for folder in CARRIED:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file():
                link(path, copy / path.relative_to(root))
    return [path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()]


def _look(work: Removal) -> None:
    """Note which shards are done as planned. Raises RecipeError where who survives was decided by other settings than
    the recipe's."""
    for step in work.steps:
        other = settings_changed(step)
        if other and isinstance(step, Dedup | Decide):
            raise RecipeError(
                f"{work.root}: {step.name} ran with other settings than recipe.toml's; end that first: pipeline run"
                " --stage filter"
            )
        if not other:
            work.valid[step.name] = {unit.name for unit in _units(step) if step.journal.done(unit.name, unit.key)}


def _excise(work: Removal) -> None:
    """Take the rows out of everything in the copy, step after step, and put the manifests together again."""
    blanked = blank_input(work.copy, input_columns(work.recipe), read_tombstones(work.copy))
    work.gone.counts.update({"manifests/input/*.parquet": blanked} if blanked else {})
    begun = work.steps
    for step in begun:
        _again(work, step) if isinstance(step, Dedup | Decide) else _cut(work, step)
    for name in (name for names in STEPS.values() for name in names if name not in {step.name for step in begun}):
        _cut_plan(work, name)  # planned, and ended before the first shard was done
    _clear_leftovers(work)
    for path in sorted(path for path in (work.copy / "logs").rglob("*") if path.is_file()):
        from_lines(path, work.gone, "logs")
    if work.gone.uids:
        (work.copy / "report.html").unlink(missing_ok=True)
    for stage in STAGES:
        _manifest(work, stage)


def _clear_leftovers(work: Removal) -> None:
    """Take the rows out of tables and tars that no record names: what was set aside, and what dead attempts left
    behind."""
    named = claims_of(work.copy, STEPS)
    for path in sorted(path for path in work.copy.rglob("*") if path.suffix in (".parquet", ".tar") and path.is_file()):
        name = path.relative_to(work.copy).as_posix()
        if name in named or name == TOMBSTONES:
            continue
        what = name.partition("/")[0].lstrip(".")
        try:
            from_table(path, work.gone, what) if path.suffix == ".parquet" else from_tar(path, work.gone, what)
        except (ValueError, OSError) as error:  # pyarrow's faults are ValueErrors
            raise Stray(
                f"{work.root / name}: no record names it, and it cannot be searched ({error}); move it away"
            ) from error


def _units(step: Step) -> list[Unit]:
    """Return a step's units without what planning says to a user who is about to run it."""
    with contextlib.redirect_stdout(io.StringIO()):
        return step.units()


def _again(work: Removal, step: Step) -> None:
    """Run a step that looks at all rows at once: it reads tombstones itself."""
    (record,) = records_of(work.copy, step.name)
    (unit,) = _units(step)
    if unit.key == record.key and not (work.promotes and isinstance(step, Dedup)):
        return
    with contextlib.redirect_stdout(io.StringIO()):
        made = step.open().run(unit, InFlight())
    step.journal.record(made)


def _cut(work: Removal, step: Step) -> None:
    """Take the rows out of a step's plan and outputs; shards that were done as planned are so afterwards."""
    units = {unit.name: unit for unit in _units(step)} if step.name in work.valid else None
    if units is None:
        _cut_plan(work, step.name)
    for record in records_of(work.copy, step.name):
        cut = redact_record(step, record, work.root, work.gone)
        planned = units is not None and record.shard in work.valid[step.name]
        made = _keyed(work, step, (units or {}).get(record.shard), cut) if planned else cut
        if made is not None and made != record:
            step.journal.record(made)


def _keyed(work: Removal, step: Step, unit: Unit | None, made: ShardRecord) -> ShardRecord | None:
    """Return the record under the key that the planner asks for now; drop the shard that it asks for no more."""
    if unit is None:
        for file in made.files:
            (work.copy / file.path).unlink(missing_ok=True)
        (step.journal.folder / f"{made.shard}.json").unlink()
        return None
    if not _as_planned(work, unit):
        work.later.append(f"{step.name} {unit.name}")
        return made
    return replace(made, key=unit.key)


def _as_planned(work: Removal, unit: Unit) -> bool:
    """Tell whether the plan differs from the one before by the removed rows alone."""
    name = unit.reads.get("plan")
    if not isinstance(name, str) or not (work.root / name).exists():
        return name is None
    old, new = (read_table(folder / name, ["uid"]) for folder in (work.root, work.copy))
    return bool(old.filter(pc.invert(work.gone.rows(old)))["uid"].equals(new["uid"]))


def _cut_plan(work: Removal, step: str) -> None:
    """Take the rows out of the plan of a step that other settings would plan anew, or of one that has done nothing
    yet."""
    folder = plan_folder(work.copy, step)
    tables = sorted(folder.glob("*.parquet"))
    cut = [path for path in tables if from_table(path, work.gone, f"plan/{step}") is not None]
    if cut:
        note_plan(folder, {path.name: sha256_file(path) for path in tables})


def _manifest(work: Removal, stage: str) -> None:
    """Write a stage's manifest anew where anything it lists has changed; it names its former digest as its parent."""
    path = work.copy / "manifests" / f"{stage}.json"
    if not path.exists():
        return
    old = Manifest.read(path)
    records = {step.name: records_of(work.copy, step.name) for step in STAGES[stage]}
    inputs = [{**entry, "digest": _digest_now(work, entry)} if "digest" in entry else entry for entry in old.inputs]
    shards = [entry for name, found in records.items() for entry in shard_list(name, found)]
    made = replace(old, inputs=inputs, shards=shards, **stage_figures(work.recipe, stage, records))
    if made == old:
        return
    made = replace(made, parent=old.digest)
    made.write(work.copy)
    work.stages[stage] = {"before": old.digest, "after": made.digest}


def _digest_now(work: Removal, entry: dict[str, Any]) -> Any:
    changed = work.stages.get(str(entry["name"]).removeprefix("manifests/").removesuffix(".json"), {})
    return changed["after"] if changed and entry["digest"] == changed["before"] else entry["digest"]


def _record(work: Removal, outcome: Outcome, promote: bool) -> str:
    """Write what the removal changed; return the record's path."""
    folder = work.copy / "manifests" / FOLDER
    path = folder / f"{1 + len(list(folder.glob('*.json'))):04d}.json"
    entry = {
        "selectors": [
            {"kind": one.kind, "value_sha256": one.digest, "uids": count} for one, count in outcome.found.items()
        ],
        "promote_duplicates": promote,
        "rows": outcome.rows,
        "uids": outcome.uids,
        "taken_out": dict(sorted(outcome.counts.items())),
        "stages": work.stages,
        "tombstones_sha256": sha256_file(work.copy / TOMBSTONES),
    }
    write_json(path, entry, sealed=True)
    note_removal(work.copy, path)
    return path.relative_to(work.copy).as_posix()


def _by_folder(made: Changes) -> dict[str, int]:
    """Return folder -> files written anew or dropped."""
    counts: dict[str, int] = {}
    for name in (*made.put, *made.drop):
        folder = os.path.dirname(name) or "."
        counts[folder] = counts.get(folder, 0) + 1
    return dict(sorted(counts.items()))
