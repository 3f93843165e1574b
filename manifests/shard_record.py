"""Say what one unit of work read and wrote: its files, the rows that went in, came out and were dropped."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manifests.checksums import sha256_file
from manifests.files import digest_of, parsing
from manifests.store import is_remote


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
            facts = (root / self.path).stat() if is_remote(root) else os.stat(f"{root}/{self.path}")
            return facts.st_size == self.bytes
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
