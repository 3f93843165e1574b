"""Take rows out of single files of a run — tables, tars, statistics, logs — and leave every other byte's meaning as it
was."""

import base64
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.files import ROW_GROUP_ROWS, write_bytes, write_table
from manifests.shards import index_path, member_places, read_shard, write_shard

KEYS = ("uid", "key")
"""Columns that say whose row it is: 16 bytes, or 32 hex digits."""
HEX = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
HOSTS = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


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
        found = [name for name in KEYS if name in table.schema.names]
        for name in found:
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
        if self.hosts and any(name in self.hosts for found in HOSTS.findall(text.lower()) for name in domains(found)):
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


def from_table(path: Path, gone: RemovedRows, what: str) -> pa.Table | None:
    """Write a table without the rows that go; return these rows, or None where it holds none and stays as it is.

    Schema, metadata and the size of row groups stay.
    """
    with pq.ParquetFile(path) as file:
        names = [name for name in KEYS if name in file.schema_arrow.names]
        if not names or not any(pc.any(gone.rows(batch)).as_py() for batch in file.iter_batches(columns=names[:1])):
            return None
        groups, first = file.num_row_groups, file.metadata.row_group(0).num_rows
        table = file.read().cast(written_schema(file))
    hit = gone.rows(table)
    kept = table.filter(pc.invert(hit)).combine_chunks()
    write_table(path, kept, first if groups > 1 else ROW_GROUP_ROWS)
    taken = table.filter(hit)
    gone.counts[what] += taken.num_rows
    return taken


def written_schema(file: pq.ParquetFile) -> pa.Schema:
    """Return the schema that a Parquet file was written with: reading it alone calls the items of every list
    `element`."""
    kept = (file.metadata.metadata or {}).get(b"ARROW:schema")
    if kept is None:
        return file.schema_arrow
    return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(kept))).with_metadata(file.schema_arrow.metadata)


def from_tar(path: Path, gone: RemovedRows, what: str) -> int:
    """Write a tar, and its index where it has one, without the samples that go; return how many went.

    Of a tar without any only the headers are read.
    """
    keys = gone.hexes & {name.partition(".")[0] for name, _, _ in member_places(path)}
    if keys:
        write_shard(
            path,
            ((key, sample) for key, sample in read_shard(path) if key not in keys),
            index=index_path(path).exists(),
        )
        gone.counts[what] += len(keys)
    return len(keys)


def from_lines(path: Path, gone: RemovedRows, what: str) -> int:
    """Drop the lines of a text file that name a removed row; return how many went."""
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not gone.speaks(line)]
    if len(kept) < len(lines):
        write_bytes(path, b"".join(kept))
        gone.counts[what] += len(lines) - len(kept)
    return len(lines) - len(kept)
