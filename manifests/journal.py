"""Keep a record of each shard that a step has finished, its files and counts, in the step's journal."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from manifests.checksums import sha256_file
from manifests.files import TEMPORARY, FormatError, digest_of, parsing, read_json, write_json

AGE_NS = 200_000_000
MOST = 1 << 18
"""Records that a process remembers: 1.4 kB each."""
_REMEMBERED: "dict[tuple[int, int, int, int], ShardRecord]" = {}
STEP = "step.json"
"""In a step's journal: under which settings and weights the step was done last."""


class ConservationError(ArithmeticError):
    """Rows were lost or made up: rows in are not kept + dropped. Always a defect of this project, never of the data."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One output file: path relative to the run folder, sha256 in hex, size in bytes.

    `counted`: what stands for the file in digests where it also holds what no digest may depend on (the history of a
    fetch); empty where all of its bytes count.
    """

    path: str
    sha256: str
    bytes: int
    counted: str = ""

    @classmethod
    def of(cls, root: Path, path: Path) -> "FileRecord":
        """Measure a finished file below `root`."""
        return cls(path.relative_to(root).as_posix(), sha256_file(path), path.stat().st_size)

    def is_whole(self, root: Path) -> bool:
        """Tell whether the file is there with its recorded size."""
        try:
            return (root / self.path).stat().st_size == self.bytes
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What one unit of work read and wrote. `dropped` counts rows by reason; rows_in = rows_out + all dropped.

    `read` says which foreign bytes the unit read, with their sha256: it tells another input, and stays out of manifests
    and digests.
    """

    shard: str
    key: str
    files: tuple[FileRecord, ...]
    rows_in: int
    rows_out: int
    dropped: dict[str, int] = field(default_factory=dict)
    read: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        conserve(f"shard {self.shard}", self.rows_in, self.rows_out, self.dropped)

    @property
    def content(self) -> str:
        """Return a digest of the outputs' bytes: what a later step's key is made of."""
        return digest_of([[file.path, file.counted or file.sha256] for file in self.files])


def parse_record(path: Path, entry: Mapping[str, Any]) -> ShardRecord:
    """Return the shard's record that a journal's JSON object holds.

    Raises FormatError, naming `path`, for one that lacks a field, holds another type there, or whose rows do not add
    up.
    """
    with parsing(path, "not a shard's record"):
        fields = {name: value for name, value in entry.items() if name != "format"}
        files = tuple(FileRecord(**file) for file in entry["files"])
        record = ShardRecord(**{**fields, "files": files})
        texts = [record.shard, record.key, *record.dropped, *(text for f in files for text in (f.path, f.sha256))]
        numbers = [record.rows_in, record.rows_out, *record.dropped.values(), *(file.bytes for file in files)]
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for n in numbers):
            raise TypeError("a text or a number is something else")
    return record


def conserve(what: str, rows_in: int, kept: int, dropped: Mapping[str, int]) -> None:
    """Assert the conservation law. Raises ConservationError with the figures."""
    if rows_in != kept + sum(dropped.values()):
        raise ConservationError(
            f"{what}: {rows_in} rows in, but {kept} kept + {sum(dropped.values())} dropped {dict(dropped)}"
        )


def total_dropped(records: Iterable[ShardRecord]) -> dict[str, int]:
    """Add up the reasons of many shards, most frequent first, then by name."""
    total: Counter[str] = Counter()
    for record in records:
        total.update(record.dropped)
    return dict(sorted(((reason, n) for reason, n in total.items() if n), key=lambda item: (-item[1], item[0])))


def by_kind(records: Iterable[ShardRecord]) -> dict[str, list[ShardRecord]]:
    """Return the records of the shards of each kind, in order: those of a tier or captioner are called KIND-NUMBER."""
    found: dict[str, list[ShardRecord]] = {}
    for record in records:
        found.setdefault(record.shard.rpartition("-")[0], []).append(record)
    return found


def kept_by_kind(records: Iterable[ShardRecord]) -> dict[str, int]:
    """Add up rows_out of the shards of each kind, by name."""
    return {kind: sum(record.rows_out for record in found) for kind, found in sorted(by_kind(records).items())}


class Journal:
    """What a step has finished: one renamed JSON a shard, below `manifests/journal/STEP/` of the run folder."""

    def __init__(self, root: Path, step: str) -> None:
        self.root, self.step = root, step
        self.folder = root / "manifests" / "journal" / step

    def record(self, record: ShardRecord) -> None:
        """Write a shard's record: from now on the shard counts as done."""
        write_json(self.folder / f"{record.shard}.json", asdict(record), sealed=True)

    def get(self, shard: str) -> ShardRecord | None:
        """Return a shard's record, or None where there is none or it is damaged (the shard is then made again)."""
        path = self.folder / f"{shard}.json"
        try:
            facts = path.stat()
        except OSError:
            return None
        return _named(shard, _read(path, facts))

    def note(self) -> dict[str, Any] | None:
        """Return the note of how the step was done last (`own_key`, `settings`), or None where there is none or it is
        damaged."""
        try:
            note = read_json(self.folder / STEP)
        except (OSError, FormatError):
            return None
        return note if is_note(note, self.step) else None

    def done(self, shard: str, key: str) -> ShardRecord | None:
        """Return the record if the shard was made under this key, no row died in it, and its files are all there."""
        record = self.get(shard)
        whole = (
            record
            and record.key == key
            and not record.dropped.get("worker_died")
            and all(f.is_whole(self.root) for f in record.files)
        )
        return record if whole else None

    def forget_others(self, shards: Iterable[str]) -> int:
        """Remove records and files of shards that the plan no longer holds; return how many went."""
        keep, gone = set(shards), 0
        for path in sorted(self.folder.glob("*.json")):
            if path.stem in keep or path.name == STEP:
                continue
            record = self.get(path.stem)
            for file in record.files if record else ():
                (self.root / file.path).unlink(missing_ok=True)
            path.unlink()
            gone += 1
        return gone


def is_note(value: Mapping[str, Any], step: str) -> bool:
    """Tell whether a JSON object is the note of how this step was done last."""
    whole = isinstance(value.get("own_key"), str) and isinstance(value.get("settings"), dict)
    return whole and value.get("step", step) == step  # older notes do not say whose they are


def records_of(root: Path, step: str) -> list[ShardRecord]:
    """Return the records of a step's finished units, by name."""
    folder = Journal(root, step).folder
    try:
        with os.scandir(folder) as entries:
            there = sorted((entry.name, entry) for entry in entries if entry.name.endswith(".json"))
    except FileNotFoundError:
        return []
    found = [_listed(folder, entry) for name, entry in there if name != STEP and not name.startswith(TEMPORARY)]
    return [record for record in found if record is not None]


def _listed(folder: Path, entry: "os.DirEntry[str]") -> ShardRecord | None:
    try:
        facts = entry.stat()
    except OSError:  # a link that leads nowhere, or gone meanwhile
        return None
    return _named(entry.name.removesuffix(".json"), _read(folder / entry.name, facts))


def _named(shard: str, record: ShardRecord | None) -> ShardRecord | None:
    return record if record is not None and record.shard == shard else None


def _read(path: Path, facts: os.stat_result) -> ShardRecord | None:
    """Return the record in a file, None for a damaged one; a process reads a file that stays as it is once.

    Records are replaced by renames, so that a file is one content for ever. One that was changed within AGE_NS is not
    remembered: another of its size could take its inode within one tick of the disk's clock.
    """
    known = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    if known in _REMEMBERED:
        return _REMEMBERED[known]
    read_at = time.time_ns()
    try:
        record = parse_record(path, read_json(path))
    except (OSError, FormatError):
        return None
    if read_at - facts.st_mtime_ns > AGE_NS:
        if len(_REMEMBERED) >= MOST:
            _REMEMBERED.clear()
        _REMEMBERED[known] = record
    return record


def upstream(root: Path, *steps: str) -> str:
    """Return a digest of everything that these steps have made: what a step over all of it reads."""
    return digest_of([[step, record.shard, record.content] for step in steps for record in records_of(root, step)])
