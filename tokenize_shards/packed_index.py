"""Write and read a tier's packed index: where each sample of all shards lies, in one table, a row group per shard.

A reader opens the footer alone, whatever the number of samples, and reads a shard's rows when it comes to that shard.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.files import FORMAT, FormatError, digest_of, open_table, parsing, writing
from manifests.scratch import base
from manifests.shards import Index, Member, index_path
from tokenize_shards.samples import LoaderError, Shard

NAME = "index.parquet"
"""Its name in RUN/codes/TIER."""
MEMBERS = ("codes.npy", "json", "t5.npy")
"""Members of a sample that it has the places of: offset, length and CRC-32 of the data; length 0: the sample has
none."""
HALVES = np.dtype(">u8")
Numbers = npt.NDArray[np.uint64]


def _column(member: str, what: str) -> str:
    return f"{member.partition('.')[0]}_{what}"


SCHEMA = pa.schema(
    [
        pa.field("uid", pa.binary(16), nullable=False),
        *(
            pa.field(_column(member, what), kind, nullable=False)
            for member in MEMBERS
            for what, kind in (("offset", pa.uint64()), ("length", pa.uint32()), ("crc32", pa.uint32()))
        ),
    ],
    {"tessera_format": str(FORMAT)},
)


@dataclass(frozen=True)
class Place:
    """Where one member of each of N samples lies in a shard: all (N,) uint64."""

    offset_N: Numbers
    length_N: Numbers
    crc32_N: Numbers

    @property
    def columns(self) -> tuple[Numbers, Numbers, Numbers]:
        """Return offsets, lengths and CRC-32s."""
        return self.offset_N, self.length_N, self.crc32_N


@dataclass(frozen=True)
class ShardRows:
    """What the index says of one shard's N samples, in the shard's order."""

    uid_N2: Numbers
    """The 16 bytes of each uid as two numbers, the first eight first."""
    places: dict[str, Place]
    """By member, of MEMBERS."""

    def __len__(self) -> int:
        return len(self.uid_N2)


def write_packed_index(folder: Path, into: Path | None = None) -> Path:
    """Write index.parquet, from the indexes of a folder's shards, into it or another folder; return its path.

    Memory holds one shard's rows. Raises FormatError for an index that is damaged or of other members, OSError.
    """
    paths, path = sorted(folder.glob("*.tar")), (into or folder) / NAME
    table: list[dict[str, Any]] = []
    with writing(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, **_ENCODING) as writer:
        for tar in paths:
            index = Index.read(index_path(tar))
            rows = _rows_of(tar, index)
            table.append({"name": tar.name, "samples": len(rows), "bytes": index.bytes, "sha256": index.sha256})
            if rows.num_rows:
                writer.write_table(rows, row_group_size=rows.num_rows)
        writer.add_key_value_metadata({"shards": json.dumps(table)})
    return path


_ENCODING: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}


def _rows_of(path: Path, index: Index) -> pa.Table:
    """Return the rows of one shard. Raises FormatError where its index does not count its samples."""
    columns: dict[str, list[int]] = {name: [] for name in SCHEMA.names if name != "uid"}
    uids: list[bytes] = []
    before = ""
    for member in index.members:
        if member.key != before:
            before = member.key
            uids.append(_uid(path, member))
            for column in columns.values():
                column.append(0)
        extension = member.name.partition(".")[2]
        if extension in MEMBERS:
            for what, value in (("offset", member.offset), ("length", member.length), ("crc32", member.crc32)):
                columns[_column(extension, what)][-1] = value
    if len(uids) != index.samples:
        raise FormatError(f"{index_path(path)}: {len(uids)} samples among its members, it says {index.samples}")
    return pa.table({"uid": pa.array(uids, pa.binary(16)), **columns}, schema=SCHEMA)


def _uid(path: Path, member: Member) -> bytes:
    try:
        uid = bytes.fromhex(member.key)
    except ValueError:
        uid = b""
    if len(uid) != 16:
        raise FormatError(
            f"{path}: sample {member.key[:40]!r}: a sample of codes is named by the 32 hex digits of its uid"
        )
    return uid


class PackedIndex:
    """A tier's packed index; opened, it holds what it says of each shard, and nothing of the samples."""

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        """`folder` has the shards, where they do not lie beside the index. Raises FormatError for a file that is
        damaged or no packed index, OSError."""
        self.path, folder = path, folder or path.parent
        self.scratch: tempfile.TemporaryDirectory[str] | None = None
        with open_table(path) as file:
            self._check(file)
            said = (file.metadata.metadata or {}).get(b"shards", b"")
            groups = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]
        with parsing(path, "not a packed index"):
            self.shards = [
                Shard(folder / str(one["name"]), int(one["samples"]), int(one["bytes"]), str(one["sha256"]))
                for one in json.loads(said)
            ]
        if [shard.samples for shard in self.shards if shard.samples] != groups:
            raise FormatError(f"{path}: its rows are not those of the shards that it names")

    def _check(self, file: pq.ParquetFile) -> None:
        version = (file.schema_arrow.metadata or {}).get(b"tessera_format", b"?").decode("ascii", "replace")
        if version != str(FORMAT) or not file.schema_arrow.equals(SCHEMA):
            raise FormatError(f"{self.path}: not a packed index of format {FORMAT}")

    @property
    def is_own(self) -> bool:
        """Tell whether it was made for this process alone, and goes with it."""
        return self.scratch is not None

    @property
    def samples(self) -> int:
        """Return the number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def digest(self) -> str:
        """Return the sha256 that stands for all shards, as `samples.data_digest` makes it."""
        return digest_of([[shard.path.name, shard.sha256] for shard in self.shards])

    @cached_property
    def _groups(self) -> list[int]:
        """Return shard number -> row group; an empty shard has none, and its number here means nothing."""
        filled = np.cumsum([0, *(bool(shard.samples) for shard in self.shards)])
        return [int(number) for number in filled[:-1]]

    def rows(self, number: int) -> ShardRows:
        """Return the rows of the shard `self.shards[number]`. Raises FormatError, OSError."""
        return next(self.all_rows([number]))

    def all_rows(self, numbers: Sequence[int]) -> Iterator[ShardRows]:
        """Yield the rows of these shards, one shard at a time."""
        with open_table(self.path) as file:
            for number in numbers:
                empty = not self.shards[number].samples
                yield _shard_rows(SCHEMA.empty_table() if empty else file.read_row_group(self._groups[number]))

    def uids(self) -> Iterator[tuple[int, Numbers]]:
        """Yield (shard number, its uids (N, 2)), of that column alone; empty shards too."""
        with open_table(self.path) as file:
            for number, shard in enumerate(self.shards):
                if not shard.samples:
                    yield number, np.zeros((0, 2), np.uint64)
                    continue
                yield number, _halves(file.read_row_group(self._groups[number], columns=["uid"])["uid"])


def _shard_rows(table: pa.Table) -> ShardRows:
    def numbers(member: str, what: str) -> Numbers:
        column: Numbers = table[_column(member, what)].to_numpy().astype(np.uint64)
        return column

    places = {
        member: Place(numbers(member, "offset"), numbers(member, "length"), numbers(member, "crc32"))
        for member in MEMBERS
    }
    return ShardRows(_halves(table["uid"]), places)


def _halves(uids: pa.ChunkedArray) -> Numbers:
    """Return 16-byte values as (N, 2) numbers."""
    whole = uids.combine_chunks()
    if not len(whole):
        return np.zeros((0, 2), np.uint64)
    buffer, start = whole.buffers()[1], whole.offset
    return np.frombuffer(buffer, HALVES, 2 * len(whole), 16 * start).reshape(-1, 2).astype(np.uint64)


def staleness(index: PackedIndex, tars: Sequence[Path]) -> str:
    """Return how the tars that there are differ from those that the index names, by name and size, or nothing: what
    their bytes are is checked as they are read."""
    named = {shard.path.name: shard.bytes for shard in index.shards}
    there = {path.name: path.stat().st_size for path in tars}
    if named.keys() != there.keys():
        odd = sorted(named.keys() ^ there.keys())
        return f"it is not of the shards that are there: {odd[0]} {'is new' if odd[0] in there else 'is gone'}"
    wrong = next((name for name, size in named.items() if there[name] != size), None)
    return "" if wrong is None else f"{wrong} is a damaged shard: {there[wrong]} bytes, the index says {named[wrong]}"


def open_packed_index(folder: Path) -> PackedIndex:
    """Return the packed index of RUN/codes/TIER; where there is none, as in runs of before there was any, one that is
    made for this process alone (`is_own`).

    Raises LoaderError where there is none of the shards that are there, and says the remedy.
    """
    tars = sorted(folder.glob("*.tar"))
    try:
        index = PackedIndex(folder / NAME) if (folder / NAME).is_file() else _own(folder)
    except (OSError, FormatError) as error:
        raise _refusal(folder, str(error)) from error
    if fault := staleness(index, tars):
        raise _refusal(folder, fault)
    return index


def _own(folder: Path) -> PackedIndex:
    """Return an index that goes with this process."""
    scratch = tempfile.TemporaryDirectory(prefix="index-", dir=base(), ignore_cleanup_errors=True)
    index = PackedIndex(write_packed_index(folder, Path(scratch.name)), folder)
    index.scratch = scratch
    return index


def _refusal(folder: Path, fault: str) -> LoaderError:
    return LoaderError(f"packed index {folder / NAME}: {fault}; run `make pretokenize` again, which makes it anew")
