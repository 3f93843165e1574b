"""Read every record of a run folder — journals, manifests, plans, checkpoints, what was set aside — and say which of
them is damaged."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from manifests.aside import ASIDE, parse_group
from manifests.files import SEAL, FormatError, SealError, finished, json_text, parse_json, parsing, unsealed
from manifests.journal import STEP, FileRecord, ShardRecord, is_note, parse_record
from manifests.layout import FETCH_SETTINGS, PLAN, PLANNED, SINGLE, owner
from manifests.lineage import FOLDER
from manifests.manifest import DIGESTS, Manifest
from manifests.plans import BEFORE, FRESH, resting_folder
from manifests.recipe_file import read_headed
from manifests.regular_files import read_plain

ALWAYS: dict[str, tuple[str, type]] = {
    DIGESTS: ("stages", dict),
    "input.json": ("files", list),
    "recipe.json": ("recipe", dict),
}
"""Records in manifests/ that every run has, and the field that makes each what it is."""
Stages = Mapping[str, Sequence[str]]
"""Stage -> its steps, in order."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one file. `step` and `shard` say whose output it is.

    kind: missing, damaged, foreign (no record names it), stale (whole, but not what another record says); or a note
    that is no fault: leftover (of a dead attempt; the next run sweeps it), unproved (no record of its bytes),
    unfinished.
    """

    path: str
    kind: str
    says: str
    step: str = ""
    shard: str = ""

    @property
    def wrong(self) -> bool:
        """Tell whether verify ends with exit code 1 for it."""
        return self.kind not in ("leftover", "unproved", "unfinished")


def with_cure(findings: Sequence[Finding]) -> list[Finding]:
    """Say of what a manifest alone names, where a journal of its stage was changed since, that the stage's next run
    makes what is wanted of it."""
    behind = {finding.path: finding.step for finding in findings if finding.kind == "stale" and finding.step}
    cured = []
    for finding in findings:
        by = next((name for name in behind if f"though {name} " in finding.says), "")
        if finding.kind == "missing" and by:
            stage = Path(by).stem
            cure = f"the journal of {behind[by]} was changed since: pipeline run --stage {stage} ends what was begun"
            finding = replace(finding, says=f"{finding.says}; {cure}")
        cured.append(finding)
    return cured


@dataclass(frozen=True)
class Claim:
    """A file that a record names, and what its bytes must be; bytes -1: not recorded."""

    file: FileRecord
    by: str
    step: str = ""
    shard: str = ""


@dataclass
class Records:
    """What the folder's records say: whole records by place, claims on files, findings so far, paths accounted for,
    planned shards."""

    root: Path
    journal: dict[str, dict[str, ShardRecord]] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    plans: dict[str, set[str]] = field(default_factory=dict)

    def find(self, path: Path | str, kind: str, says: str, step: str = "", shard: str = "") -> None:
        """Note a finding about a path in the folder."""
        name = path if isinstance(path, str) else path.relative_to(self.root).as_posix()
        self.findings.append(Finding(name, kind, says, step, shard))

    def found(self, name: str) -> bool:
        """Tell whether something wrong is already noted about a file."""
        return any(finding.path == name and finding.wrong for finding in self.findings)

    def planned(self, step: str) -> set[str] | None:
        """Return the shards that a step has to make, or None where nothing whole says so."""
        return {"00000"} if step in SINGLE else self.plans.get("fetch" if step == "score" else step)

    def json(self, path: Path, step: str = "", shard: str = "") -> dict[str, Any] | None:
        """Return a record's content without its seal, or None with a finding where it is missing or not byte for byte
        what was written."""
        name = path.relative_to(self.root).as_posix()
        self.known.add(name)
        try:
            data = read_plain(path)
            value, sealed = unsealed(path, data)
            text = _as_written(path, data)
        except FileNotFoundError:
            self.find(name, "missing", "not there", step, shard)
            return None
        except (OSError, FormatError) as error:
            self.find(name, "damaged", _reason(error, path), step, shard)
            return None
        if data != text:
            self.find(
                name, "damaged", "its content can be read, but its bytes are not those that were written", step, shard
            )
            return None
        if not sealed:
            self.find(name, "damaged", f"has no {SEAL}: nothing proves that it is as it was written", step, shard)
        return value

    def shaped(self, path: Path, step: str, is_it: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any] | None:
        """Return a record as `json` does, and None with a finding for one that is whole but another kind of record."""
        entry = self.json(path, step)
        if entry is None or is_it(entry):
            return entry
        self.find(path, "damaged", "whole in itself, but another record than the one that belongs here", step)
        return None


def _as_written(path: Path, data: bytes) -> bytes:
    """Return the bytes that `write_json` makes of what a JSON text says, its seal included."""
    with parsing(path, "holds what no record does"):
        return json_text(parse_json(path, data))


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    return "empty" if path.stat().st_size == 0 else str(error).removeprefix(f"{path}: ")


def read_records(root: Path, stages: Stages) -> Records:
    """Read every record below `root`; never raises for a damaged one."""
    records = Records(root)
    _journals(records)
    for stage in stages:
        _manifest(records, stage)
    _other_manifests(records)
    _plans(records)
    _recipe(records)
    _checkpoints(records)
    _aside(records)
    return records


def _journals(records: Records) -> None:
    for path in finished(records.root / "manifests" / "journal", "*/*.json"):
        step, shard = path.parent.name, path.stem
        if path.name == STEP:
            records.shaped(path, step, partial(is_note, step=step))
            continue
        entry = records.json(path, step, shard)
        if entry is None:
            continue
        try:
            record = parse_record(path, entry)
        except FormatError as error:
            records.find(path, "damaged", _reason(error, path), step, shard)
            continue
        others = [file.path for file in record.files if owner(file.path) not in ((step, shard), ("", ""))]
        if record.shard != shard or others:
            whose = f"names {others[0]}" if others else f"the record of shard {record.shard}"
            records.find(path, "damaged", f"{whose}: not that of {step} {shard}", step, shard)
            continue
        records.journal.setdefault(step, {})[shard] = record
        for file in record.files:
            records.claims[file.path] = Claim(file, "its journal", step, shard)


def _manifest(records: Records, stage: str) -> None:
    path = records.root / "manifests" / f"{stage}.json"
    records.known.add(f"manifests/{stage}.json")
    if not path.exists():
        return
    if records.shaped(path, "", lambda entry: entry.get("stage") == stage) is None:
        return
    try:
        manifest = Manifest.read(path)
    except (OSError, FormatError) as error:
        records.find(path, "damaged", str(error).removeprefix(f"{path}: "))
        return
    records.manifests[stage] = manifest
    for entry in manifest.shards:
        file = FileRecord(entry["path"], entry["sha256"], entry["bytes"])
        records.claims.setdefault(file.path, Claim(file, f"manifests/{stage}.json", entry["step"], entry["shard"]))


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
        records.find(path, "damaged", _reason(error, path))
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
        records.find(path, "damaged", _reason(error, path))
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
            records.find(path, "damaged", _reason(error, path), ASIDE, path.stem)
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
    for entry in manifest.shards:
        if entry["step"] == step:
            yield entry["shard"], entry["path"], entry["sha256"], entry["bytes"], entry["rows_in"], entry["rows_out"]


DIGESTS_PATH = f"manifests/{DIGESTS}"
