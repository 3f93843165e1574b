"""Write and read a stage's manifest: its inputs, weights, counts and shards, and the digest of them all."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

from manifests.checksums import sha256_file
from manifests.files import FormatError, SealError, digest_of, parsing, read_field, read_json, write_json
from manifests.journal import ShardRecord, conserve

DIGESTS = "digests.json"
"""Beside the manifests: the digest of each, so that a manifest that went missing or was swapped is missed."""

DERIVED = ("refusals", "removed_by_list")
"""Facts that are counted from files that the digest, or the record of tombstones, holds already: a manifest of before,
which lacks them, keeps its digest."""
LISTED = ("step", "shard", "path", "sha256", "bytes", "rows_in", "rows_out")
"""What a manifest says of each file of its shards."""


class ManifestError(FormatError):
    """A manifest was edited or damaged: its digest is not that of its content."""


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

    @cached_property
    def digest(self) -> str:
        """Return the sha256 over recipe, inputs, weights and output bytes: everything here but `versions` and DERIVED
        facts."""
        entry = {name: value for name, value in self._entry().items() if name != "versions"}
        entry["facts"] = {name: value for name, value in self.facts.items() if name not in DERIVED}
        return digest_of({**entry, "shards": [_counted(entry) for entry in self.shards]})

    def _entry(self) -> dict[str, Any]:
        entry = {name.name: getattr(self, name.name) for name in fields(self)}
        return {name: value for name, value in entry.items() if name != "parent" or value}

    def write(self, root: Path) -> Path:
        """Write the manifest below the run folder, note its digest in `manifests/digests.json`, and return its path."""
        path = root / "manifests" / f"{self.stage}.json"
        write_json(path, {"stage": self.stage, "digest": self.digest, **self._entry()}, sealed=True)
        known = {**read_digests(root), self.stage: {"digest": self.digest, "sha256": sha256_file(path)}}
        write_json(path.with_name(DIGESTS), {"stages": dict(sorted(known.items()))}, sealed=True)
        return path

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest and check its digest. Raises ManifestError or another FormatError, OSError."""
        try:
            entry = read_json(path)
        except SealError as error:
            raise ManifestError(str(error)) from error
        entry.pop("format")
        digest = entry.pop("digest", None)
        with parsing(path, "not a manifest of this version", ManifestError):
            manifest = cls(**entry)
            content = manifest.digest
        if content != digest:
            raise ManifestError(
                f"{path}: its digest says {digest}, its content {content}: the file was changed after it was written"
            )
        with parsing(path, "its shards or inputs are none", ManifestError):
            for entry in manifest.shards:
                itemgetter(*LISTED)(entry)
            for entry in manifest.inputs:
                entry["name"].removeprefix("manifests/")
        return manifest


def read_digests(root: Path) -> dict[str, dict[str, str]]:
    """Return stage -> digest and file's sha256 of every manifest written last; nothing where that list is missing or
    damaged."""
    try:
        return read_field(root / "manifests" / DIGESTS, "stages", dict)
    except (OSError, FormatError):
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
