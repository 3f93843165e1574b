"""Cut the rows that a step works on into shards, as small tables written before any worker starts.

A plan is a folder: a table a shard, and a note of the sha256 of each and of what they were made from. It is made beside
the one before and takes its place by two renames, so that a kill leaves the one or the other, whole.
"""

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from manifests.checksums import sha256_file
from manifests.files import TEMPORARY, FormatError, digest_of, finished, read_field, read_json, write_json, write_table
from manifests.journal import FileRecord
from manifests.layout import PLAN
from manifests.store import drop, entries, is_remote, local_scratch, scan, store_of
from manifests.store import link as put_link
from manifests.working_copy import link

BEFORE = f"{TEMPORARY}before-"
"""Beside the plans: the plan of a step that a new one is taking the place of."""
FRESH = f"{TEMPORARY}fresh-"
"""Beside the plans: one that is being made; the next holder of the run folder sweeps what a kill leaves of it."""
Planned = list[tuple[str, Path, str]]
"""Name, path and sha256 of each table, in order."""


def plan_folder(root: Path, step: str) -> Path:
    """Return the folder of a step's planned shards."""
    return root / "manifests" / "plan" / step


def resting_folder(root: Path, step: str) -> Path:
    """Return the folder that holds a step's plan: beside its place where a kill stopped a swap between its two
    renames."""
    folder = plan_folder(root, step)
    before = folder.with_name(f"{BEFORE}{step}")
    return before if before.exists() and not folder.exists() else folder


def planned_tables(root: Path, step: str) -> list[Path]:
    """Return the tables of a step's plan, by name."""
    return finished(resting_folder(root, step), "*.parquet")


def plan_digest(root: Path, step: str) -> str:
    """Return a digest of the bytes of a step's plan, "" where it has no whole note."""
    try:
        return digest_of(list(read_field(resting_folder(root, step) / PLAN, "files", dict).items()))
    except (OSError, FormatError):
        return ""


def plan_digests(root: Path, step: str) -> dict[str, str]:
    """Return name -> sha256 of each table of a step's plan; none where it has no whole note."""
    try:
        files = read_field(resting_folder(root, step) / PLAN, "files", dict)
    except (OSError, FormatError):
        return {}
    return {name.removesuffix(".parquet"): str(sha256) for name, sha256 in files.items()}


def write_plan(root: Path, step: str, tables: Iterable[tuple[str, pa.Table]], made_from: str = "") -> Planned:
    """Write the planned tables in the place of an earlier plan, and return (name, path, sha256) of each.

    `made_from`: a digest of everything that the tables depend on. Where the plan that is there was made from the same,
    and is whole, it stands: `tables` is not asked for its first one.
    """
    if made_from and (standing := standing_plan(root, step, made_from)) is not None:
        return standing
    folder = plan_folder(root, step)
    _settle(folder)
    with _fresh(folder) as fresh:
        files = {}
        for name, table in tables:
            path = fresh / f"{name}.parquet"
            write_table(path, table)
            files[path.name] = sha256_file(path)
        note_plan(fresh, files, made_from, step)
        _swap(folder, fresh)
    return _listed(folder, files)


def standing_plan(root: Path, step: str, made_from: str) -> Planned | None:
    """Return the plan that is there if it was made from this and is whole; None where it must be made."""
    folder = plan_folder(root, step)
    _settle(folder)
    return _standing(folder, made_from)


def put_plan(root: Path, step: str, tables: Iterable[FileRecord], made_in: Path, made_from: str) -> Planned:
    """Put tables that were written elsewhere, below `made_in`, in the place of an earlier plan, as `write_plan` does;
    they stay where they are too."""
    folder = plan_folder(root, step)
    _settle(folder)
    listed = list(tables)
    files = {os.path.basename(table.path): table.sha256 for table in listed}
    sources = {os.path.basename(table.path): made_in / table.path for table in listed}
    with _fresh(folder) as fresh:
        if not is_remote(folder):
            fresh.mkdir(parents=True)
            for name, source in sources.items():
                _link(str(source), os.path.join(fresh, name))
        note_plan(fresh, files, made_from, step)
        _swap(folder, fresh, sources)
    return _listed(folder, files)


def _link(source: str, target: str) -> None:
    """Make a new file lead to another one: a hard link where the disk has them."""
    try:
        os.link(source, target)
    except OSError:
        link(Path(source), Path(target))


@contextlib.contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """Yield where a plan is made until it takes the place of another one: beside it, for a store on this machine."""
    fresh = folder.with_name(f"{FRESH}{os.getpid()}-{secrets.token_hex(4)}-{folder.name}")
    if is_remote(folder):
        fresh = local_scratch(folder)
    try:
        yield fresh
    finally:
        drop(fresh)


def note_plan(folder: Path, files: dict[str, str], made_from: str = "", step: str = "") -> None:
    """Write what a step's plan holds: name -> sha256 of its tables, in order, and what they were made from.

    Without `made_from` the plan is made anew by the next run. `step`: whose it is, where its folder is not called so.
    """
    made = {"made_from": made_from} if made_from else {}
    write_json(folder / PLAN, {"step": step or folder.name, "files": files, **made}, sealed=True)


def settle_plans(root: Path) -> None:
    """End every swap of plans that a kill stopped: where no plan is in the place of the one before, that goes back."""
    for before in sorted((root / "manifests" / "plan").glob(f"{BEFORE}*")):
        _settle(before.with_name(before.name.removeprefix(BEFORE)))


def _settle(folder: Path) -> None:
    before = folder.with_name(f"{BEFORE}{folder.name}")
    if not before.exists():
        return
    if folder.exists():
        drop(before)
    else:
        os.replace(before, folder)


def _swap(folder: Path, fresh: Path, sources: Mapping[str, Path] | None = None) -> None:
    """Put a plan that was made in the place of the one before. `sources`: where its tables lie in the store."""
    if is_remote(folder):
        _upload(folder, fresh, sources or {})
        return
    if folder.exists():
        os.replace(folder, folder.with_name(f"{BEFORE}{folder.name}"))
    try:
        os.replace(fresh, folder)
    finally:
        _settle(folder)


def _upload(folder: Path, fresh: Path, sources: Mapping[str, Path]) -> None:
    """Put a plan into a store, which renames no folder: without its note it is none, and the note comes last."""
    (folder / PLAN).unlink(missing_ok=True)
    made = [path.name for path in fresh.iterdir() if path.name != PLAN]
    for name in {entry.name for entry in entries(folder)} - {*made, *sources}:
        (folder / name).unlink(missing_ok=True)
    for name, source in sources.items():
        put_link(source, folder / name)
    for name in (*made, PLAN):
        store_of(folder).commit(fresh / name, folder / name)


def _listed(folder: Path, files: dict[str, str]) -> Planned:
    return [(name.removesuffix(".parquet"), folder / name, sha256) for name, sha256 in files.items()]


def _standing(folder: Path, made_from: str) -> Planned | None:
    """Return the plan that is there if it was made from this and is whole; None where it must be made.

    A table that is no younger than the note, which is written last, is what the note says; others are measured.
    """
    try:
        note = read_json(folder / PLAN)
        files = note.get("files")
        if note.get("made_from") != made_from or note.get("step") != folder.name or not isinstance(files, dict):
            return None
        with scan(folder) as found:
            written = {entry.name: entry.stat().st_mtime_ns for entry in found}
        if written.keys() != {*files, PLAN}:
            return None
        younger = [name for name, at in written.items() if name != PLAN and at > written[PLAN]]
        whole = all(sha256_file(folder / name) == files[name] for name in younger)
    except (OSError, FormatError):
        return None
    return _listed(folder, files) if whole else None
