"""Write and read a stage's manifest: its inputs, weights, counts and shards, and the digest of them all.

The shards are a table of their own, `manifests/STAGE.parquet`, whose sha256 stands in the manifest.
"""

import contextlib
import hashlib
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.checksums import sha256_file
from manifests.files import (
    FormatError,
    SealError,
    canonical_json,
    parsing,
    read_field,
    read_json,
    read_table,
    write_json,
    write_table,
)
from manifests.shard_record import conserve
from manifests.shard_table import SHARDS, entries_json, from_entries
from manifests.store import rename

DIGESTS = "digests.json"
"""Beside the manifests: the digest of each, so that a manifest that went missing or was swapped is missed."""

DERIVED = ("refusals", "removed_by_list")
"""Facts that are counted from files that the digest, or the record of tombstones, holds already: a manifest of before,
which lacks them, keeps its digest."""
NEXT = ".next.parquet"
"""How the name of a table of shards ends that its manifest may not name yet: a kill in between leaves it."""


class ManifestError(FormatError):
    """A manifest was edited or damaged: its digest is not that of its content."""


class ShardsError(ManifestError):
    """The manifest is whole, and its table of shards is damaged or lost."""


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
    shards: pa.Table
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
        facts.

        It is that of one object's canonical JSON (sorted keys, no spaces, UTF-8), in which shards are a list of
        objects.
        """
        entry = {name: value for name, value in self._entry().items() if name != "versions"}
        entry["facts"] = {name: value for name, value in self.facts.items() if name not in DERIVED}
        digest = hashlib.sha256()
        for number, name in enumerate(sorted(entry)):
            digest.update((b"," if number else b"{") + canonical_json(name) + b":")
            for piece in entries_json(self.shards) if name == "shards" else [canonical_json(entry[name])]:
                digest.update(piece)
        digest.update(b"}")
        return digest.hexdigest()

    def _entry(self) -> dict[str, Any]:
        entry = {name.name: getattr(self, name.name) for name in fields(self)}
        return {name: value for name, value in entry.items() if name != "parent" or value}

    def write(self, root: Path) -> Path:
        """Write the manifest and its table of shards below the run folder, note its digest in `manifests/digests.json`,
        and return its path.

        The table comes first, under a name of its own until the manifest names it: killed at any moment, what is there
        can be read, as it was or as it is.
        """
        path = root / "manifests" / f"{self.stage}.json"
        table, ahead = shards_path(path), path.with_name(f"{self.stage}{NEXT}")
        _settle(path)
        write_table(ahead, self.shards)
        shards = {"table": table.name, "entries": self.shards.num_rows, "sha256": sha256_file(ahead)}
        write_json(path, {"stage": self.stage, "digest": self.digest, **self._entry(), "shards": shards}, sealed=True)
        rename(ahead, table)
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
            manifest = cls(**{**entry, "shards": _read_shards(path, entry["shards"])})
            content = manifest.digest
        if content != digest:
            raise ManifestError(
                f"{path}: its digest says {digest}, its content {content}: the file was changed after it was written"
            )
        with parsing(path, "its inputs are none", ManifestError):
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


def shards_path(path: Path) -> Path:
    """Return where the table of shards of the manifest at `path` lies."""
    return path.with_suffix(".parquet")


def _settle(path: Path) -> None:
    """Put the table that a kill left under its first name in its place, where the manifest names it already."""
    with contextlib.suppress(OSError, FormatError, KeyError):
        ahead = path.with_name(f"{path.stem}{NEXT}")
        if sha256_file(ahead) == read_field(path, "shards", dict)["sha256"]:
            rename(ahead, shards_path(path))


def _read_shards(path: Path, said: Any) -> pa.Table:
    """Return the files that a manifest lists: itself, as it did before, or in the table that has the sha256 it names.
    Raises ManifestError, OSError, and what a malformed list makes Python raise."""
    if isinstance(said, list):
        return from_entries(said)
    sha256, entries = said["sha256"], said["entries"]
    if shards_path(path).is_dir():
        raise ShardsError(f"{shards_path(path)}: a folder, wanted the table of shards that {path.name} names")
    for place in (shards_path(path), path.with_name(f"{path.stem}{NEXT}")):
        if place.is_file() and sha256_file(place) == sha256:
            table = read_table(place)
            if not table.schema.equals(SHARDS) or table.num_rows != entries:
                raise ManifestError(f"{place}: not a table of {entries} files")
            return table.replace_schema_metadata(None)
    raise ShardsError(f"{shards_path(path)}: not the table of shards that {path.name} names")
