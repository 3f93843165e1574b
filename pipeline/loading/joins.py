"""Put captions or text features from other tables beside samples, by uid, without packing the shards again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.checksums import sha256_file
from manifests.files import digest_of, open_table, read_schema, writing
from manifests.query import connect, files_sql
from manifests.roots import place_of
from manifests.store import scratch_of
from pipeline.loading.where import places_sql
from pipeline.recipes.schema import RecipeError
from tokenize_shards.packed_index import PackedIndex
from tokenize_shards.samples import Features, unpack_numbers

OF_FEATURES = ("tokens", "features", "dtype", "features_of")
"""Columns of stored features: how many tokens, tokens x width numbers of 16 bits, fp16 or bf16, and the source of the
caption that they are of."""
NUMBERS = {"fp16": "<f2", "bf16": "<u2"}
BATCH = 10_000
"""Rows of the join that are handled at a time."""


@dataclass(frozen=True)
class Beside:
    """What stands beside the N samples of a window: rows of a table, and which of them each sample has, -1 for none."""

    table: pa.Table
    row_N: "np.ndarray[tuple[int], np.dtype[np.int64]]"

    def captions(self, number: int) -> list[tuple[str, str]]:
        """Return the captions beside a sample as (source, text)."""
        row = int(self.row_N[number])
        if row < 0:
            return []
        names = [name for name in self.table.column_names if name not in ("row", *OF_FEATURES)]
        texts = [(name, self.table[name][row].as_py()) for name in names]
        return [(name, text) for name, text in texts if text is not None]

    def features(self, number: int) -> tuple[str, Features] | None:
        """Return (source of the caption, features (tokens, width)) beside a sample. Raises ValueError."""
        row = int(self.row_N[number])
        if row < 0 or "features" not in self.table.column_names or not self.table["features"][row].is_valid:
            return None
        data, dtype, tokens, source = (
            self.table[name][row].as_py() for name in ("features", "dtype", "tokens", "features_of")
        )
        return source, unpack_numbers(np.frombuffer(data, NUMBERS[dtype]).reshape(tokens, -1)).astype(np.float32)


class Join:
    """Tables joined to one index: their rows in the order of its samples, a row group per shard, in RUN/logs/joins."""

    def __init__(self, root: Path, index: PackedIndex, names: Sequence[str]) -> None:
        """names: Parquet files, or folders of them, here or in a store.

        Raises RecipeError for tables without uids, with columns of other types, or with a uid twice.
        """
        self.index, self.root = index, root
        self.files = [path for name in names for path in _tables(name)]
        self.schema = _schema(self.files)
        self.digest = digest_of([[path.name, sha256_file(path)] for path in self.files])
        self.path = scratch_of(root) / "logs" / "joins" / f"{digest_of([self.digest, index.digest])}.parquet"
        if not self.path.is_file():
            self._make()
        self.rows = self._counts[-1]

    @property
    def sources(self) -> list[str]:
        """Return the caption sources that the tables bring."""
        return [name for name in self.schema.names if name not in ("uid", *OF_FEATURES)]

    @property
    def says(self) -> str:
        """Return how many samples have a row."""
        return f"train.join: {self.rows:,} of {self.index.samples:,} samples have a row beside them"

    def _make(self) -> None:
        """Join by uid, sort by sample, and write a row group per shard. Memory holds BATCH rows and what DuckDB may."""
        uid = "unhex(uid)" if pa.types.is_string(self.schema.field("uid").type) else "uid"
        rest = ", ".join(f'"{name}"' for name in self.schema.names if name != "uid")
        table = f"SELECT {uid} AS uid, {rest} FROM {files_sql(self.files)}"
        query = f"SELECT place, {rest} FROM ({table}) JOIN ({places_sql(self.index)}) USING (uid) ORDER BY place"
        ends = np.cumsum([shard.samples for shard in self.index.shards])
        schema = pa.schema([pa.field("row", pa.int64()), *(field for field in self.schema if field.name != "uid")])
        with connect(self.root) as connection, writing(self.path) as temporary:
            rows = connection.execute(query).to_arrow_reader(BATCH)
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                counts = [0]
                for number, part in enumerate(_by_shard(rows, ends)):
                    row_N = part["place"].to_numpy() - (int(ends[number - 1]) if number else 0)
                    if len(row_N) > len(np.unique(row_N)):
                        raise RecipeError(
                            f"train.join: {self.files[0]}: a uid stands twice in these tables; wanted one row each"
                        )
                    counts.append(counts[-1] + part.num_rows)
                    if part.num_rows:
                        whole = part.drop(["place"]).add_column(0, "row", pa.array(row_N, pa.int64())).cast(schema)
                        writer.write_table(whole, row_group_size=max(1, whole.num_rows))
                writer.add_key_value_metadata({"counts": ",".join(map(str, counts))})

    @cached_property
    def _counts(self) -> list[int]:
        with open_table(self.path) as file:
            return [int(word) for word in file.metadata.metadata[b"counts"].split(b",")]

    @cached_property
    def _groups(self) -> list[int]:
        """Return shard number -> row group; one without rows has none, and its number here means nothing."""
        filled = np.cumsum([0, *(np.diff(self._counts) > 0)])
        return [int(number) for number in filled[:-1]]

    def beside(self, numbers: Sequence[int], shard_N: Any, row_N: Any) -> Beside:
        """Return what stands beside the samples of a window: those of these shards, by shard and row."""
        tables, found_N, rows = [], np.full(len(shard_N), -1, np.int64), 0
        with open_table(self.path) as file:
            for number in numbers:
                if self._counts[number + 1] == self._counts[number]:
                    continue
                group = sum(
                    after > before
                    for before, after in zip(self._counts[:number], self._counts[1 : number + 1], strict=True)
                )
                table = file.read_row_group(group)
                place_S = np.full(self.index.shards[number].samples, -1, np.int64)
                place_S[table["row"].to_numpy()] = rows + np.arange(table.num_rows)
                mine = shard_N == number
                found_N[mine] = place_S[row_N[mine]]
                tables.append(table)
                rows += table.num_rows
        return Beside(pa.concat_tables(tables) if tables else pa.table({"row": pa.array([], pa.int64())}), found_N)


def _by_shard(rows: Any, ends: Any) -> Iterator[pa.Table]:
    """Yield the rows of each shard in turn, of batches in order of place."""
    waiting: list[pa.RecordBatch] = []
    batches, shard = iter(rows), 0
    for batch in batches:
        while batch.num_rows:
            cut = int(np.searchsorted(batch["place"].to_numpy(), ends[shard]))
            waiting.append(batch.slice(0, cut))
            batch = batch.slice(cut)
            if batch.num_rows:
                yield pa.Table.from_batches(waiting, rows.schema)
                waiting, shard = [], shard + 1
    while shard < len(ends):
        yield pa.Table.from_batches(waiting, rows.schema)
        waiting, shard = [], shard + 1


def _tables(name: str) -> list[Path]:
    path = place_of(name)
    found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not found or not all(one.is_file() for one in found):
        raise RecipeError(f"train.join: no table at {name!r}; wanted a Parquet file, or a folder of them")
    return found


def _schema(files: Sequence[Path]) -> pa.Schema:
    """Return the columns of the tables, all alike. Raises RecipeError."""
    schemas = [read_schema(path).remove_metadata() for path in files]
    other = next((path for path, schema in zip(files, schemas, strict=True) if not schema.equals(schemas[0])), None)
    if other is not None:
        raise RecipeError(f"train.join: {other} has other columns than {files[0]}")
    schema = schemas[0]
    uid = schema.field("uid").type if "uid" in schema.names else None
    if uid is None or not (pa.types.is_string(uid) or pa.types.is_binary(uid) or uid == pa.binary(16)):
        raise RecipeError(
            f"train.join: {files[0]} has no column 'uid' of 16 bytes or 32 hex digits; it has {', '.join(schema.names)}"
        )
    texts = [field for field in schema if field.name not in ("uid", *OF_FEATURES)]
    wrong = next((field for field in texts if not pa.types.is_string(field.type)), None)
    if wrong is not None:
        raise RecipeError(
            f"train.join: column {wrong.name!r} of {files[0]} is {wrong.type}; wanted captions as text, named by their"
            f" source, or {', '.join(OF_FEATURES)}"
        )
    if "features" in schema.names and not set(OF_FEATURES) <= set(schema.names):
        raise RecipeError(f"train.join: {files[0]} has features; wanted {', '.join(OF_FEATURES)} beside one another")
    return schema
