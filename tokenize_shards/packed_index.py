"""Write and read a tier's packed index: where each sample of all shards lies, in one table, a row group per shard.

A reader opens the footer alone, whatever the number of samples, and reads a shard's rows when it comes to that shard.
"""

import contextlib
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.files import FORMAT, FormatError, digest_of, open_table, parsing, writing
from manifests.in_threads import each
from manifests.scratch import base
from manifests.shards import Index, index_path
from tokenize_shards.samples import LoaderError, Shard

NAME = "index.parquet"
"""Its name in RUN/codes/TIER."""
MEMBERS = ("codes.npy", "json", "t5.npy")
"""Members of a sample that it has the places of."""
HALVES = np.dtype(">u8")
PLACE = np.dtype([("offset", "<u8"), ("length", "<u4"), ("crc32", "<u4")])
"""A cell of a member's column, 16 bytes, little-endian: where its data begin in the tar, how many bytes they are, their
CRC-32; length 0: the sample has none. One column each, since a reader parses the footer's line of every column of
every shard before it reads a row."""
TOGETHER = 16
"""Shards whose uids are read by one opening of the file."""
Numbers = npt.NDArray[np.uint64]
COLUMNS = {member: member.partition(".")[0] for member in MEMBERS}
"""Member -> its column."""
SCHEMA = pa.schema(
    [pa.field(name, pa.binary(16), nullable=False) for name in ("uid", *COLUMNS.values())],
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

    Memory holds one shard's rows; its bytes depend on the shards' indexes alone. Raises FormatError for an index that
    is damaged or of other members, OSError.
    """
    paths, path = sorted(folder.glob("*.tar")), (into or folder) / NAME
    gone = {one.name for one in folder.glob("*.index.json")} - {index_path(one).name for one in paths}
    if gone:
        raise FormatError(f"{folder / min(gone)}: the shard that it is of is gone")
    table: list[dict[str, Any]] = []
    with writing(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, **_ENCODING) as writer:
        for tar, (index, rows) in zip(paths, each(folder, _rows_of, paths), strict=True):
            table.append({"name": tar.name, "samples": len(rows), "bytes": index.bytes, "sha256": index.sha256})
            if rows.num_rows:
                writer.write_table(rows, row_group_size=rows.num_rows)
        writer.add_key_value_metadata({"shards": json.dumps(table)})
    return path


_ENCODING: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}


def _rows_of(path: Path) -> tuple[Index, pa.Table]:
    """Return a shard's index, without its members, and its rows. Raises FormatError where it does not count its
    samples."""
    index = Index.read(index_path(path))
    row_of: dict[str, int] = {}
    found: dict[str, list[tuple[int, int, int, int]]] = {member: [] for member in MEMBERS}
    for member in index.members:
        key, _, extension = member.name.partition(".")
        row = row_of.setdefault(key, len(row_of))
        if extension in found:
            found[extension].append((row, member.offset, member.length, member.crc32))
    if len(row_of) != index.samples:
        raise FormatError(f"{index_path(path)}: {len(row_of)} samples among its members, it says {index.samples}")
    uids = b"".join(_uid(path, key) for key in row_of)
    columns = [_sixteens(uids), *(_sixteens(_cells_of(places, len(row_of))) for places in found.values())]
    return replace(index, members=()), pa.Table.from_arrays(columns, schema=SCHEMA)


def _cells_of(places: list[tuple[int, int, int, int]], rows: int) -> bytes:
    """Return a member's column: `places` are (row, offset, length, CRC-32) of the samples that have it."""
    row_M, *values = np.array(places, np.int64).reshape(-1, 4).T
    cells_N = np.zeros(rows, PLACE)
    for name, values_M in zip(("offset", "length", "crc32"), values, strict=True):
        cells_N[name][row_M] = values_M
    return cells_N.tobytes()


def _sixteens(data: bytes) -> pa.Array:
    """Return bytes as a column of 16-byte cells."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(data) // 16, [None, pa.py_buffer(data)])


def _uid(path: Path, key: str) -> bytes:
    try:
        uid = bytes.fromhex(key)
    except ValueError:
        uid = b""
    if len(uid) != 16:
        raise FormatError(f"{path}: sample {key[:40]!r}: a sample of codes is named by the 32 hex digits of its uid")
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
            self._footer, self._bytes = file.metadata, path.stat().st_size
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

    @contextlib.contextmanager
    def opened(self) -> Iterator[pq.ParquetFile]:
        """Open the file by the footer that was read at first. Raises FormatError where it is another file by now."""
        with open_table(self.path, self._footer) as file:
            if self.path.stat().st_size != self._bytes:
                raise FormatError(f"{self.path}: written anew since it was opened: begin again")
            yield file

    def rows(self, number: int) -> ShardRows:
        """Return the rows of the shard `self.shards[number]`. Raises FormatError, OSError."""
        return next(self.all_rows([number]))

    def all_rows(self, numbers: Sequence[int]) -> Iterator[ShardRows]:
        """Yield the rows of these shards, one shard at a time."""
        with self.opened() as file:
            for number in numbers:
                yield _shard_rows(self.table(file, number, SCHEMA.names))

    def uids(self) -> Iterator[tuple[int, Numbers]]:
        """Yield (shard number, its uids (N, 2)), of that column alone; empty shards too. Of a store some are asked for
        at a time."""
        every = range(len(self.shards))
        some = [every[start : start + TOGETHER] for start in every[::TOGETHER]]
        yield from enumerate(itertools.chain.from_iterable(each(self.path, self._uids_of, some)))

    def _uids_of(self, numbers: Sequence[int]) -> list[Numbers]:
        with self.opened() as file:
            return [_halves(self.table(file, number, ["uid"])["uid"]) for number in numbers]

    def table(self, file: pq.ParquetFile, number: int, columns: list[str]) -> pa.Table:
        """Return columns of the rows of `self.shards[number]` from the opened file."""
        if not self.shards[number].samples:
            return SCHEMA.empty_table().select(columns)
        return file.read_row_group(self._groups[number], columns=columns, use_threads=False)


def _shard_rows(table: pa.Table) -> ShardRows:
    return ShardRows(_halves(table["uid"]), {member: _place(table[column]) for member, column in COLUMNS.items()})


def _place(column: pa.ChunkedArray) -> Place:
    cells_N = np.frombuffer(_cells(column), PLACE)
    return Place(*(cells_N[name].astype(np.uint64) for name in ("offset", "length", "crc32")))


def _halves(column: pa.ChunkedArray) -> Numbers:
    """Return 16-byte values as (N, 2) numbers."""
    return np.frombuffer(_cells(column), HALVES).reshape(-1, 2).astype(np.uint64)


def _cells(column: pa.ChunkedArray) -> bytes | memoryview:
    """Return the bytes of 16-byte cells, one behind the other."""
    whole = column.combine_chunks()
    start = 16 * whole.offset
    return memoryview(whole.buffers()[1])[start : start + 16 * len(whole)] if len(whole) else b""


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


def unlike(index: PackedIndex) -> str:
    """Return which shard's rows are not those of its own index beside it, or nothing. Reads the index of every shard.
    Raises FormatError, OSError."""
    made = each(index.path, _rows_of, (shard.path for shard in index.shards))
    with index.opened() as file:
        for number, (own, rows) in enumerate(made):
            shard = index.shards[number]
            if (own.bytes, own.sha256) != (shard.bytes, shard.sha256) or not rows.equals(
                index.table(file, number, SCHEMA.names)
            ):
                return f"what it says of {shard.path.name} is not what {index_path(shard.path).name} says"
    return ""


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
        raise _refusal(folder, fault, index)
    return index


def _own(folder: Path) -> PackedIndex:
    """Return an index that goes with this process."""
    scratch = tempfile.TemporaryDirectory(prefix="index-", dir=base(), ignore_cleanup_errors=True)
    index = PackedIndex(write_packed_index(folder, Path(scratch.name)), folder)
    index.scratch = scratch
    return index


def _refusal(folder: Path, fault: str, index: PackedIndex | None = None) -> LoaderError:
    who = f"shards in {folder}" if index is not None and index.is_own else f"packed index {folder / NAME}"
    return LoaderError(f"{who}: {fault}; run `make pretokenize` again, which makes it anew")
