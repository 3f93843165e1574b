"""Record what was made from what: shard records, step keys, the journal and the stage's manifest with its digest."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from manifests.files import FormatError, SealError, digest_of, read_json, write_json
from manifests.weights import sha256_file

DIGESTS = "digests.json"
"""Beside the manifests: the digest of each, so that a manifest that went missing or was swapped is missed."""


STEP = "step.json"
"""In a step's journal: under which settings and weights the step was done last."""


class ConservationError(AssertionError):
    """Rows were lost or made up: rows in are not kept + dropped. Always a defect of this project, never of the data."""


class ManifestError(ValueError):
    """A manifest was edited or damaged: its digest is not that of its content."""


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
        try:
            entry = read_json(self.folder / f"{shard}.json")
            entry.pop("format")
            record = ShardRecord(**{**entry, "files": tuple(FileRecord(**file) for file in entry["files"])})
        except (OSError, FormatError, KeyError, TypeError, ConservationError):
            return None
        return record if record.shard == shard else None

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


@dataclass(frozen=True)
class Manifest:
    """What a stage made: the file `manifests/STAGE.json`. `facts` are fields that a stage adds (tiers, tokenizer …).

    `parent`: the digest that the manifest had before rows were removed from what it lists; empty, and left out, where
    none were.
    """

    stage: str
    recipe_digest: str
    inputs: list[dict[str, Any]]
    weights: list[dict[str, Any]]
    rows_in: int
    kept: int
    dropped: dict[str, int]
    shards: list[dict[str, Any]]
    losses: list[dict[str, Any]]
    tiers: dict[str, int]
    versions: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)
    parent: str = ""

    def __post_init__(self) -> None:
        conserve(f"stage {self.stage}", self.rows_in, self.kept, self.dropped)

    @property
    def digest(self) -> str:
        """Return the sha256 over recipe, inputs, weights and output bytes: everything here but `versions`."""
        facts = {name: value for name, value in self._entry().items() if name != "versions"}
        return digest_of({**facts, "shards": [_counted(entry) for entry in self.shards]})

    def _entry(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "parent" or value}

    def write(self, root: Path) -> Path:
        """Write the manifest below the run folder, note its digest in `manifests/digests.json`, and return its path."""
        path = root / "manifests" / f"{self.stage}.json"
        write_json(path, {"stage": self.stage, "digest": self.digest, **self._entry()}, sealed=True)
        known = {**read_digests(root), self.stage: {"digest": self.digest, "sha256": sha256_file(path)}}
        write_json(path.with_name(DIGESTS), {"stages": dict(sorted(known.items()))}, sealed=True)
        return path

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest and check its digest. Raises ManifestError, FormatError or OSError."""
        try:
            entry = read_json(path)
        except SealError as error:
            raise ManifestError(str(error)) from error
        entry.pop("format")
        digest = entry.pop("digest", None)
        try:
            manifest = cls(**entry)
        except TypeError as error:
            raise ManifestError(f"{path}: not a manifest of this version ({error})") from error
        if manifest.digest != digest:
            raise ManifestError(
                f"{path}: its digest says {digest}, its content {manifest.digest}: the file was changed after it was"
                " written"
            )
        return manifest


def read_digests(root: Path) -> dict[str, dict[str, str]]:
    """Return stage -> digest and file's sha256 of every manifest written last; nothing where that list is missing or
    damaged."""
    try:
        return dict(read_json(root / "manifests" / DIGESTS)["stages"])
    except (OSError, FormatError, KeyError, TypeError, ValueError):
        return {}


def _counted(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a shard's entry as it counts in the digest: with `counted` in the place of the bytes where there is
    one."""
    if not entry.get("counted"):
        return {name: value for name, value in entry.items() if name != "counted"}
    return {
        **{name: value for name, value in entry.items() if name not in ("counted", "bytes")},
        "sha256": entry["counted"],
    }


def shard_list(root_step: str, records: Iterable[ShardRecord]) -> list[dict[str, Any]]:
    """Return the manifest's entries of a step's shards: one a file, with step, path, sha256, bytes, rows."""
    return [
        {
            "step": root_step,
            "shard": record.shard,
            **asdict(file),
            "rows_in": record.rows_in,
            "rows_out": record.rows_out,
        }
        for record in records
        for file in record.files
    ]
