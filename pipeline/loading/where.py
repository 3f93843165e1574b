"""Choose samples by a condition on their rows of the ledger: a bit per sample, kept for the next start."""

from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from manifests.files import digest_of, parsing, read_schema, write_bytes
from manifests.query import connect, files_sql
from manifests.store import scratch_of
from pipeline.loading.selection import Bits
from pipeline.recipes.schema import RecipeError
from tokenize_shards.packed_index import PackedIndex
from tokenize_shards.samples import npy_bytes, read_npy

BATCH = 1_000_000
"""Row numbers that are handled at a time."""


def bits_where(root: Path, index: PackedIndex, condition: str) -> Bits:
    """Return which samples of an index have a kept row in RUN/ledger/final that fulfils `condition`, SQL over its
    columns.

    DuckDB joins uids, within the run's memory limit and spilling to its disk; here stands a bit per sample. The answer
    is kept in RUN/logs/selections, which holds no uid. Raises RecipeError, with the columns, for what is no condition.
    """
    ledger = sorted((root / "ledger" / "final").glob("*.parquet"))
    if not ledger:
        raise RecipeError(f"train.where: {root}/ledger/final has no table: run `pipeline run --stage filter` first")
    starts_S = np.cumsum([0, *(shard.samples for shard in index.shards)], dtype=np.int64)
    about = digest_of(
        [condition, index.digest, [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in ledger]]
    )
    kept = scratch_of(root) / "logs" / "selections" / f"{about}.npy"
    if not kept.is_file():
        write_bytes(kept, npy_bytes(_asked(root, index, (condition, ledger))))
    with parsing(kept, "not a selection that was kept: remove it"):
        return Bits(read_npy(kept.read_bytes()), starts_S)


def places_sql(index: PackedIndex) -> str:
    """Return SQL of an index's samples: uid, and `place`, counted over all shards."""
    return f"SELECT file_row_number AS place, uid FROM {files_sql([index.path])}"


def _asked(root: Path, index: PackedIndex, asked: tuple[str, list[Path]]) -> npt.NDArray[np.uint8]:
    """Return the bits, eight in a byte, the first the lowest."""
    condition, ledger = asked
    packed = np.zeros(-(-index.samples // 8), np.uint8)
    rows = f"SELECT uid FROM {files_sql(ledger)} WHERE fate = 'kept' AND (\n{condition}\n)"
    with connect(root) as connection:
        try:
            connection.execute(f"SELECT\n{condition}\nFROM {files_sql(ledger)} LIMIT 0")  # whole by itself
            connection.execute(f"FROM ({rows}) LIMIT 0")
        except duckdb.Error as error:
            columns = read_schema(ledger[0]).names
            said = str(error).splitlines()[0]
            raise RecipeError(
                f"train.where: {condition!r} is no condition on a row of the ledger ({said}); its columns:"
                f" {', '.join(columns)}"
            ) from error
        query = f"SELECT place FROM ({places_sql(index)}) SEMI JOIN ({rows}) USING (uid)"
        for batch in connection.execute(query).to_arrow_reader(BATCH):
            place_N = batch["place"].to_numpy()
            np.bitwise_or.at(packed, place_N >> 3, (1 << (place_N & 7)).astype(np.uint8))
    return packed
