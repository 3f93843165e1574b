"""Take rows out of what a run holds — tables, tars, logs, the files of one unit — and leave every other byte's meaning
as it was."""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.checksums import sha256_file
from manifests.files import ROW_GROUP_ROWS, FormatError, open_table, write_bytes, write_table
from manifests.journal import FileRecord, ShardRecord
from manifests.shards import Index, index_path, member_places, read_shard, write_shard
from manifests.store import is_remote

KEYS = ("uid", "key")
"""Columns that say whose row it is: 16 bytes, or 32 hex digits."""
HEX = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
HOSTS = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class DamagedFileError(FormatError):
    """A file of the run is not what its record says; the message names it."""


@dataclass(frozen=True)
class RemovedRows:
    """The uids that go, 16 bytes each, the URLs of their rows, and hosts that go; `counts`: rows and samples taken out,
    by folder."""

    uids: frozenset[bytes]
    urls: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)

    @cached_property
    def hexes(self) -> frozenset[str]:
        """Return the uids as keys of samples."""
        return frozenset(uid.hex() for uid in self.uids)

    @cached_property
    def _sets(self) -> tuple[pa.Array, pa.Array]:
        return pa.array(sorted(self.uids), pa.binary(16)), pa.array(sorted(self.hexes), pa.string())

    def rows(self, table: pa.Table | pa.RecordBatch) -> pa.Array:
        """Tell of each row of a table whether it goes. Never null."""
        binary, text = self._sets
        for name in (name for name in KEYS if name in table.schema.names):
            column = table[name]
            if pa.types.is_string(column.type):
                return pc.fill_null(pc.is_in(column, value_set=text), False)
            return pc.fill_null(pc.is_in(column.cast(binary.type), value_set=binary), False)
        return pa.array([False] * table.num_rows)

    @cached_property
    def _written(self) -> tuple[frozenset[str], list[int], list[str]]:
        """Return the URLs as text and as JSON, how long they are, and those of local files, which have no scheme to
        look for."""
        forms = self.urls | {json.dumps(url)[1:-1] for url in self.urls}
        return forms, sorted({len(form) for form in forms}), sorted(form for form in forms if "://" not in form)

    def speaks(self, line: bytes) -> bool:
        """Tell whether a line of text names a removed row, its URL, or a removed host."""
        if any(match.decode() in self.hexes for match in HEX.findall(line.lower())):
            return True
        text = line.decode("utf-8", "replace")
        if self.hosts and any(name in self.hosts for host in HOSTS.findall(text.lower()) for name in domains(host)):
            return True
        forms, lengths, paths = self._written
        begins = [match.start() for match in SCHEME.finditer(text)]
        return any(text[at : at + length] in forms for at in begins for length in lengths) or any(
            path in text for path in paths
        )


def domains(host: str) -> list[str]:
    """Return a host and every domain above it."""
    labels = host.split(".")
    return [".".join(labels[place:]) for place in range(len(labels))]


def holds(path: Path, removed: RemovedRows) -> bool:
    """Tell whether a table or tar holds a row that goes; any other file holds none. Of a tar only the headers are
    read; in a store its index or the table beside it, where there is one."""
    if path.suffix == ".tar":
        return _may_hold(path, removed) and bool(_keys(path, removed))
    if path.suffix != ".parquet":
        return False
    with open_table(path) as file:
        names = [name for name in KEYS if name in file.schema_arrow.names]
        batches = file.iter_batches(columns=names[:1]) if names else ()
        return any(pc.any(removed.rows(batch)).as_py() for batch in batches)


def _may_hold(path: Path, removed: RemovedRows) -> bool:
    """Tell by what stands beside a tar in a store, where headers alone cannot be read, whether it may hold a row that
    goes."""
    if not is_remote(path):
        return True
    if index_path(path).exists():
        try:
            return any(member.key in removed.hexes for member in Index.read(index_path(path)).members)
        except FormatError:
            return True
    table = path.with_suffix(".parquet")
    return not table.exists() or holds(table, removed)


def _keys(path: Path, removed: RemovedRows) -> frozenset[str]:
    return removed.hexes & {name.partition(".")[0] for name, _, _ in member_places(path)}


def from_table(path: Path, removed: RemovedRows, what: str) -> pa.Table | None:
    """Write a table without the rows that go; return these rows, or None where it holds none and stays as it is.

    Schema, metadata and the size of row groups stay.
    """
    if not holds(path, removed):
        return None
    with open_table(path) as file:
        groups, first = file.num_row_groups, file.metadata.row_group(0).num_rows
        table = file.read().cast(written_schema(file))
    hit = removed.rows(table)
    kept = table.filter(pc.invert(hit)).combine_chunks()
    write_table(path, kept, first if groups > 1 else ROW_GROUP_ROWS)
    taken = table.filter(hit)
    removed.counts[what] += taken.num_rows
    return taken


def written_schema(file: pq.ParquetFile) -> pa.Schema:
    """Return the schema that a Parquet file was written with: reading it alone calls the items of every list
    `element`."""
    kept = (file.metadata.metadata or {}).get(b"ARROW:schema")
    if kept is None:
        return file.schema_arrow
    return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(kept))).with_metadata(file.schema_arrow.metadata)


def from_tar(path: Path, removed: RemovedRows, what: str) -> int:
    """Write a tar, and its index where it has one, without the samples that go; return how many went.

    Of a tar without any only the headers are read.
    """
    keys = _keys(path, removed)
    if keys:
        samples = ((key, sample) for key, sample in read_shard(path) if key not in keys)
        write_shard(path, samples, index=index_path(path).exists())
        removed.counts[what] += len(keys)
    return len(keys)


def from_lines(path: Path, removed: RemovedRows, what: str) -> int:
    """Drop the lines of a text file that name a removed row; return how many went."""
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not removed.speaks(line)]
    if len(kept) < len(lines):
        write_bytes(path, b"".join(kept))
        removed.counts[what] += len(lines) - len(kept)
    return len(lines) - len(kept)


def from_unit(root: Path, record: ShardRecord, removed: RemovedRows, reason: str) -> ShardRecord:
    """Take the rows out of the tables and tars of a finished unit; return its record under its old key, the same where
    they hold none of them.

    `reason`: the column of the unit's first table that says why a row has no output. Raises DamagedFileError.
    """
    paths = [root / file.path for file in record.files if holds(root / file.path, removed)]
    changed = {*paths, *(index_path(path) for path in paths if path.suffix == ".tar")}
    need_whole(root, (file for file in record.files if root / file.path in changed))
    samples, taken = 0, list[pa.Table]()
    for path in paths:
        what = f"{path.parent.relative_to(root).as_posix()}/*{path.suffix}"
        if path.suffix == ".tar":
            samples += from_tar(path, removed, what)
        elif (rows := from_table(path, removed, what)) is not None:
            taken.append(rows)
    if not paths:
        return record
    return measured_again(root, _without(record, samples, taken, reason), changed)


def _without(record: ShardRecord, samples: int, taken: list[pa.Table], reason: str) -> ShardRecord:
    """Return the record with the counts of the rows that stay."""
    dropped: Counter[str] = Counter()
    if taken and reason in taken[0].schema.names:
        dropped.update(taken[0][reason].drop_null().to_pylist())
    rows = taken[0].num_rows if taken else samples
    return replace(
        record,
        rows_in=record.rows_in - rows,
        rows_out=record.rows_out - rows + dropped.total(),
        dropped={name: count - dropped[name] for name, count in record.dropped.items() if count > dropped[name]},
    )


def need_whole(root: Path, files: Iterable[FileRecord]) -> None:
    """Raise DamagedFileError for a file that is not of its recorded sha256: written anew, what is damaged would pass
    for whole."""
    for file in files:
        path = root / file.path
        if sha256_file(path) != file.sha256:
            raise DamagedFileError(f"{path} is damaged: it has not the sha256 that its journal names")


def measured_again(root: Path, record: ShardRecord, changed: Iterable[Path]) -> ShardRecord:
    """Return the record with sha256 and size, as they are now, of the files that were written anew."""
    paths = set(changed)
    files = (
        replace(FileRecord.of(root, root / file.path), counted=file.counted) if root / file.path in paths else file
        for file in record.files
    )
    return replace(record, files=tuple(files))
