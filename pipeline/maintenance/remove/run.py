"""Remove rows from a run: every file that holds them is written anew, and tombstones keep them from coming back."""

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from manifests.checksums import sha256_file
from manifests.files import write_json
from manifests.lineage import FOLDER, note_removal
from manifests.remote_path import snapshot
from manifests.tombstones import KINDS, TOMBSTONES, Tombstones, read_tombstones, write_tombstones
from manifests.transaction import ASKED, Changes, changes, commit, is_noted
from manifests.verify import Report, look_over
from manifests.working_copy import whole_copy
from pipeline.execution.partial import sweep_partial
from pipeline.execution.redaction import DamagedFileError, RemovedRows
from pipeline.execution.run_folder import COPY, RECIPE, locked
from pipeline.execution.step import Runtime
from pipeline.maintenance.remove.redact_run import STEPS, Removal, note_valid, redact_run
from pipeline.maintenance.remove.selectors import Selector, UnreadableRequestError, asked_for, hit_by
from pipeline.maintenance.remove.tombstone_rows import tombstones_of, urls_of
from pipeline.maintenance.verify_removed import with_absence
from pipeline.recipes.schema import Recipe
from pipeline.stages.registry import STAGES

RECIPES = (RECIPE, COPY)
"""Copies of one another, which hold no rows: one of them, or the option `--recipe`, is enough."""


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
    done first. Raises RecipeError before any work, or while another run holds the folder, and DamagedFileError for a
    run that is to be repaired first.
    """
    with locked(root, removing=True):
        unfinished = _unfinished(root)
        if unfinished[0] and unfinished != (list(selectors), promote):
            first = _remove(root, recipe, runtime, *unfinished)
            print(
                f"{root}: first ended a removal that was interrupted: {first.rows:,} rows of {first.uids:,} uids"
                f" {first.record}",
                file=sys.stderr,
            )
        return _remove(root, recipe, runtime, selectors, promote)


def _unfinished(root: Path) -> tuple[list[Selector], bool]:
    """Return what a removal that is not at its end was asked for; what is asked now takes the place of what cannot be
    read."""
    try:
        return asked_for(root)
    except UnreadableRequestError as error:
        print(f"{error}: what is asked for now is done instead", file=sys.stderr)
        return [], False


def _remove(root: Path, recipe: Recipe, runtime: Runtime, selectors: Sequence[Selector], promote: bool) -> Outcome:
    with Asked(root) as asked:
        _refuse_damage(root)
        before = read_tombstones(root)
        uids = hit_by(selectors, root)
        known = _known(before, [selector for selector in selectors if not uids[selector]])
        promoted = known if promote and _barring(before, known) else {}
        left = frozenset(before.uids.to_pylist()) if known and _is_left(root) else frozenset[bytes]()
        if len(known) == len(selectors) and not promoted and not left:
            asked.forget()
            return Outcome(dict.fromkeys(selectors, 0), tuple(known))
        asked.note(selectors, promote)
        sweep_partial(root)  # finished rows of half-done units: they cost the work on them alone
        steps = [step(recipe, root, runtime) for steps in STAGES.values() for step in steps]
        fresh = {selector: uids[selector] for selector in selectors if selector not in known}
        with snapshot(), whole_copy(root) as (copy, names):
            inside = recipe.model_copy(update={"output": recipe.output.model_copy(update={"root": str(copy)})})
            work = Removal(root, copy, inside, runtime, _removed_rows(root, uids, left), bool(promoted))
            rows = tombstones_of(root, steps, fresh, promote)
            _redact(work, [*_promoted(before, promoted), *rows])
            outcome = _outcome(work, {selector: len(uids[selector]) for selector in selectors}, tuple(known), rows)
            outcome = replace(outcome, record=_record(work, outcome, promote))
            changed = changes(root, copy, names)
            commit(root, copy, changed)
        asked.forget()
    return replace(outcome, files=_by_folder(changed))


def _is_left(root: Path) -> bool:
    """Tell whether a file still holds something that was removed, or a report is older than the last removal."""
    report, tombstones = root / "report.html", root / TOMBSTONES
    is_outdated = report.exists() and report.stat().st_mtime_ns <= tombstones.stat().st_mtime_ns
    found = with_absence(root, Report(0, 0, ())).findings
    return is_outdated or any(finding.path != ASKED for finding in found)


def _removed_rows(root: Path, uids: Mapping[Selector, Collection[bytes]], left: frozenset[bytes]) -> RemovedRows:
    every = left | {uid for hit in uids.values() for uid in hit}
    hosts = frozenset(selector.value for selector in uids if selector.kind == "host")
    return RemovedRows(every, urls_of(root, every), hosts)


def _redact(work: Removal, tombstones: list[dict[str, Any]]) -> None:
    """Write the tombstones into the copy, and take out what goes."""
    something = bool(work.removed.uids) or work.promotes
    if something:
        note_valid(work)
    write_tombstones(work.copy, tombstones)
    if something:
        redact_run(work)


def _outcome(
    work: Removal, counts: dict[Selector, int], known: tuple[Selector, ...], rows: list[dict[str, Any]]
) -> Outcome:
    """Return what was done; `rows`: the new tombstones."""
    places = {(row["source"], row["source_row"]) for row in rows if row["source"] is not None}
    return Outcome(
        counts,
        known,
        len(places),
        len(work.removed.uids),
        dict(work.removed.counts),
        stages=work.stages,
        later=tuple(work.later),
    )


def _refuse_damage(root: Path) -> None:
    """Raise DamagedFileError where a file is missing, cut or damaged: rows would not be found in it, or not be taken
    out of it."""
    findings = [finding for finding in look_over(root, STEPS) if finding.path not in RECIPES]
    if findings:
        more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        raise DamagedFileError(f"{root}: {findings[0].path} is {findings[0].kind} ({findings[0].says}){more}")


@dataclass(frozen=True)
class Asked:
    """What a removal is asked for, noted in the run from its begin to its end: a kill leaves the note, and the removal
    is gone on with. It is forgotten where the removal cannot be done and nothing was changed."""

    root: Path

    def note(self, selectors: Sequence[Selector], promote: bool) -> None:
        """Write the note."""
        entry = {"selectors": [[selector.kind, selector.value] for selector in selectors], "promote": promote}
        write_json(self.root / ASKED, entry, sealed=True)

    def forget(self) -> None:
        """Drop the note."""
        (self.root / ASKED).unlink(missing_ok=True)

    def __enter__(self) -> "Asked":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not is_noted(self.root):
            self.forget()


def _known(before: Tombstones, selectors: Sequence[Selector]) -> dict[Selector, None]:
    """Return those of the selectors that have a tombstone, in order."""
    uids = {uid.hex() for uid in before.uids.to_pylist()}
    values = {kind: set(before.values(kind).to_pylist()) for kind in KINDS}
    return {
        selector: None
        for selector in selectors
        if selector.digest in values[selector.kind] or (selector.kind == "uid" and selector.value in uids)
    }


def _is_of(selectors: Collection[Selector]) -> Callable[[dict[str, Any]], bool]:
    """Return what tells whether a tombstone is of a removed row that one of the selectors names."""
    values = {(selector.kind, selector.digest) for selector in selectors}
    uids = {bytes.fromhex(selector.value) for selector in selectors if selector.kind == "uid"}
    return lambda row: row["uid"] is not None and ((row["kind"], row["value_sha256"]) in values or row["uid"] in uids)


def _barring(before: Tombstones, selectors: Collection[Selector]) -> list[dict[str, Any]]:
    """Return the tombstones of these selectors that keep near duplicates out."""
    is_of = _is_of(selectors)
    return [row for row in before.table.to_pylist() if row["won"] and not row["promote"] and is_of(row)]


def _promoted(before: Tombstones, selectors: Collection[Selector]) -> list[dict[str, Any]]:
    """Return the tombstones; those of these selectors let near duplicates in from now on."""
    is_of = _is_of(selectors)
    return [{**row, "promote": row["promote"] or is_of(row)} for row in before.table.to_pylist()]


def _record(work: Removal, outcome: Outcome, promote: bool) -> str:
    """Write what the removal changed; return the record's path."""
    folder = work.copy / "manifests" / FOLDER
    path = folder / f"{1 + len(list(folder.glob('*.json'))):04d}.json"
    entry = {
        "selectors": [
            {"kind": selector.kind, "value_sha256": selector.digest, "uids": count}
            for selector, count in outcome.found.items()
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


def _by_folder(changed: Changes) -> dict[str, int]:
    """Return folder -> files written anew or dropped."""
    counts: dict[str, int] = {}
    for name in (*changed.put, *changed.drop):
        folder = os.path.dirname(name) or "."
        counts[folder] = counts.get(folder, 0) + 1
    return dict(sorted(counts.items()))
