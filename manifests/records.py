"""Read every record of a run folder — journals, manifests, plans, checkpoints, what was set aside — and say which of
them is damaged."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from manifests.aside import ASIDE, parse_group
from manifests.files import FormatError, SealError, finished, parsing, unsealed
from manifests.findings import Claim, Records, Stages, reason_of
from manifests.journal import FileRecord
from manifests.journal_records import read_journals
from manifests.layout import FETCH_SETTINGS, PLAN, PLANNED
from manifests.lineage import FOLDER
from manifests.manifest import DIGESTS, NEXT, Manifest, ShardsError, shards_path
from manifests.plans import BEFORE, FRESH, resting_folder
from manifests.recipe_file import read_headed
from manifests.regular_files import read_plain
from manifests.shard_table import files_of

ALWAYS: dict[str, tuple[str, type]] = {
    DIGESTS: ("stages", dict),
    "input.json": ("files", list),
    "recipe.json": ("recipe", dict),
}
"""Records in manifests/ that every run has, and the field that makes each what it is."""


def read_records(root: Path, stages: Stages) -> Records:
    """Read every record below `root`; never raises for a damaged one."""
    records = Records(root)
    read_journals(records)
    for stage in stages:
        _manifest(records, stage)
    _other_manifests(records)
    _plans(records)
    _recipe(records)
    _checkpoints(records)
    _aside(records)
    return records


def _manifest(records: Records, stage: str) -> None:
    path = records.root / "manifests" / f"{stage}.json"
    tables = [
        other for other in (shards_path(path), path.with_name(f"{stage}{NEXT}")) if other.exists() or other.is_symlink()
    ]
    records.known |= {f"manifests/{other.name}" for other in (path, *tables)}
    if f"manifests/{stage}{NEXT}" in records.known:
        records.find(f"manifests/{stage}{NEXT}", "leftover", "left by a stage that was killed at its end")
    if not path.exists():
        return
    if records.shaped(path, "", lambda entry: entry.get("stage") == stage) is None:
        return
    try:
        manifest = Manifest.read(path)
    except ShardsError as error:
        table = shards_path(path)
        kind = "damaged" if table.exists() else "missing"
        records.find(table, kind, str(error).removeprefix(f"{table}: ") if table.exists() else "not there")
        return
    except (OSError, FormatError) as error:
        records.find(path, "damaged", str(error).removeprefix(f"{path}: "))
        return
    records.manifests[stage] = manifest
    names = [manifest.shards[name].to_pylist() for name in ("step", "shard", "path", "sha256", "bytes")]
    for step, shard, name, sha256, size in zip(*names, strict=True):
        if name not in records.claims:
            file = FileRecord(name, sha256, size)
            records.claims[name] = Claim(file, f"manifests/{stage}.json", step, shard)


def _other_manifests(records: Records) -> None:
    """Read what else lies in manifests/: a record of this format is known, whoever wrote it; other JSON is foreign."""
    folder = records.root / "manifests"
    for path in [
        path for pattern in ("*.json", "plan/*.json", f"{FOLDER}/*.json") for path in finished(folder, pattern)
    ]:
        name = path.relative_to(records.root).as_posix()
        expected = path.name in ALWAYS or (path.parent.name == FOLDER and path.stem.isdigit())
        if name not in records.known and not path.name.startswith(".") and (expected or _is_record(path)):
            has, kind = ALWAYS.get(path.name, ("format", int)) if path.parent == folder else ("format", int)
            entry = records.shaped(path, "", partial(_holds, field=has, kind=kind))
            if name == "manifests/input.json":
                _made_tables(records, path, entry or {})


def _holds(entry: Mapping[str, Any], field: str, kind: type) -> bool:
    return isinstance(entry.get(field), kind)


def _made_tables(records: Records, path: Path, entry: Mapping[str, Any]) -> None:
    """The input list names the tables that were made of files that are none."""
    try:
        with parsing(path, "not a list of input files"):
            made = [FileRecord(*file["made"]) for file in entry.get("files", ()) if file.get("made")]
    except FormatError as error:
        records.find(path, "damaged", reason_of(error, path))
        return
    for file in made:
        records.claims[file.path] = Claim(file, "manifests/input.json")


def _is_record(path: Path) -> bool:
    try:
        unsealed(path, read_plain(path))
    except SealError:
        return True
    except (OSError, FormatError):
        return False
    return True


def _plans(records: Records) -> None:
    place = records.root / "manifests" / "plan"
    there = {path.name.removeprefix(BEFORE) for path in place.glob("*/") if not path.name.startswith(FRESH)}
    for step in sorted({*there, *(step for step in PLANNED if records.journal.get(step))}):
        folder = resting_folder(records.root, step)
        entry = records.shaped(folder / PLAN, step, partial(_is_plan, step=step))
        for path in finished(folder, "*.parquet"):
            records.known.add(path.relative_to(records.root).as_posix())
        for name, sha256 in (entry or {}).get("files", {}).items():
            file = FileRecord((folder / name).relative_to(records.root).as_posix(), str(sha256), -1)
            records.claims[file.path] = Claim(file, "its plan", step)
        if entry is not None:
            listed = set(entry["files"])
            records.plans[step] = {name.removesuffix(".parquet") for name in listed}
            for path in [path for path in finished(folder, "*.parquet") if path.name not in listed]:
                records.find(path, "foreign", "its plan does not name it", step)
        note = records.root / FETCH_SETTINGS
        if step == "fetch" and (note.exists() or "made_from" in (entry or {})):  # an older plan has none beside it
            records.shaped(note, step, lambda said: isinstance(said.get("settings"), dict))


def _is_plan(entry: Mapping[str, Any], step: str) -> bool:
    return (
        isinstance(entry.get("files"), dict) and entry.get("step", step) == step
    )  # older plans do not say whose they are


def _recipe(records: Records) -> None:
    path, copy = records.root / "recipe.toml", records.root / "manifests" / "recipe.json"
    records.known.add("recipe.toml")
    if not path.exists() and not copy.exists() and not records.manifests:
        return
    if not copy.exists():
        records.find(copy, "missing", "not there")
    if not path.exists():
        records.find(path, "missing", "not there")
        return
    try:
        values = read_headed(path)
    except (FormatError, OSError) as error:
        records.find(path, "damaged", reason_of(error, path))
        return
    if records.found("manifests/recipe.json"):
        return
    saved = unsealed(copy, read_plain(copy))[0]
    if saved.get("recipe") != values:
        records.find(path, "stale", "not the recipe of manifests/recipe.json: run the stage again")


def _checkpoints(records: Records) -> None:
    """Training leaves folders with state.json, which names the sha256 of the other files."""
    for folder in sorted(path for path in (records.root / "train").glob("*/checkpoints/*/") if path.name.isdigit()):
        entry = records.json(folder / "state.json", "train", folder.name)
        digests = (entry or {}).get("sha256")
        for name, sha256 in (digests if isinstance(digests, dict) else {}).items():
            file = FileRecord((folder / name).relative_to(records.root).as_posix(), str(sha256), -1)
            records.claims[file.path] = Claim(file, "its state.json", "train", folder.name)
    for pointer in sorted((records.root / "train").glob("*/checkpoints/latest")):
        if not (name := _text(pointer)).isdigit() or not (pointer.parent / name).is_dir():
            records.find(pointer, "damaged", f"names no checkpoint beside it ({name[:40]!r})", "train")


def _aside(records: Records) -> None:
    """What fell out of a plan lies in groups, each under a record that names the sha256 of its files."""
    for path in finished(records.root / ASIDE, "*/*.json"):
        entry = records.json(path, ASIDE, path.stem)
        if entry is None:
            continue
        try:
            group = parse_group(path, entry)
        except FormatError as error:
            records.find(path, "damaged", reason_of(error, path), ASIDE, path.stem)
            continue
        for file in group.files:
            name = (group.folder / file.path).relative_to(records.root).as_posix()
            claimed = FileRecord(name, file.sha256, file.bytes)
            records.claims[name] = Claim(claimed, "its record", ASIDE, group.name)


def _text(path: Path) -> str:
    try:
        return read_plain(path).decode("ascii", "replace").strip()
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def shard_entries(manifest: Manifest, step: str) -> Iterator[tuple[str, str, str, int, int, int]]:
    """Yield (shard, path, sha256, bytes, rows in, rows out) of a step's files in a manifest."""
    names = ("shard", "path", "sha256", "bytes", "rows_in", "rows_out")
    yield from zip(*files_of(manifest.shards, step).select(names).to_pydict().values(), strict=True)


DIGESTS_PATH = f"manifests/{DIGESTS}"
