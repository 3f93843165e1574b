"""caption / repeats: count beside how many different pictures one caption stands, over all captions of the run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioning.corpus.words import caption_keys
from manifests.files import open_table, read_table, write_table, writing_table
from manifests.journal import FileRecord, ShardRecord, records_of, upstream
from manifests.query import connect
from manifests.tables import REPEATS
from pipeline.execution.in_flight import InFlight
from pipeline.execution.step import Step, Unit
from pipeline.recipes.schema import Recipe

ATTEMPTS = ("caption", "recaption")
"""Steps whose captions are counted: what a first and what a second attempt said."""
TABLE = "captions/repeats/00000.parquet"
BATCH = 100_000
"""Rows that are read or written in one piece."""
Numbers = np.ndarray[Any, np.dtype[Any]]


def counts_repeats(recipe: Recipe) -> bool:
    """Tell whether the recipe bounds how often one caption may come: [caption.audit] max_repeats."""
    return recipe.caption.audit.max_repeats is not None


@dataclass(frozen=True)
class Repeats(Step):
    """One unit over all attempts; none where the recipe sets no bound. The bound itself is judge's business."""

    name: ClassVar[str] = "repeats"
    version: ClassVar[int] = 1
    beam: ClassVar[bool] = False
    over_all_rows: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        """Return nothing: counts depend on captions and pHashes alone."""
        return {}

    def plan(self) -> list[Unit]:
        """Take all attempts at once."""
        return [Unit("00000", {}, upstream(self.root, *ATTEMPTS, "score"))] if counts_repeats(self.recipe) else []

    def open(self) -> "Repeats":
        """Return itself: nothing to load."""
        return self

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `captions/repeats/00000.parquet`: what stands beside two pictures or more."""
        path = self.root / TABLE
        rows = self.count(path)
        return ShardRecord(unit.name, unit.key, (FileRecord.of(self.root, path),), rows, rows)

    def count(self, path: Path) -> int:
        """Write what stands beside two pictures or more to `path`; return how many attempts have words."""
        rows = written = 0
        with writing_table(path, REPEATS) as writer, connect(self.root) as connection:
            for captioner, shards in self._shards().items():
                connection.execute("CREATE OR REPLACE TEMP TABLE said (key UBIGINT, phash UBIGINT)")
                for batch in self._said(shards):
                    connection.register("batch", batch)
                    connection.execute("INSERT INTO said SELECT key, phash FROM batch")
                    connection.unregister("batch")
                    rows += batch.num_rows
                for found in connection.execute(COUNTED).to_arrow_reader(BATCH):
                    named = pa.Table.from_batches([found])
                    writer.write(named.add_column(0, "captioner", pa.array([captioner] * len(named), pa.string())))
                    written += len(named)
        if not written:
            write_table(path, REPEATS.empty_table())
        return rows

    def _shards(self) -> dict[str, list[ShardRecord]]:
        """Return captioner -> the shards of its attempts."""
        found: dict[str, list[ShardRecord]] = {}
        for step in ATTEMPTS:
            for record in records_of(self.root, step):
                found.setdefault(record.shard.rpartition("-")[0], []).append(record)
        return dict(sorted(found.items()))

    def _said(self, shards: list[ShardRecord]) -> Iterator[pa.Table]:
        """Yield (key of the caption, pHash of the picture) of every attempt that has words, shard by shard."""
        scores = {record.shard: record for record in records_of(self.root, "score")}
        for record in shards:
            said = self.said_in(record)
            scored = scores[record.shard.rpartition("-")[2]]
            hashes = read_table(self.root / scored.files[0].path, ["uid", "phash"])
            place = pc.index_in(said["uid"], value_set=hashes["uid"])
            phash = hashes["phash"].combine_chunks().take(place.combine_chunks())
            table = pa.table({"key": caption_keys(said["text"].combine_chunks()), "phash": phash})
            yield table.drop_null()

    def said_in(self, record: ShardRecord) -> pa.Table:
        """Return uid and text of the attempts of a shard."""
        return read_table(self.root / record.files[0].path, ["uid", "text"])


COUNTED = """
    SELECT key, count(*) AS pictures FROM (SELECT DISTINCT key, phash FROM said)
    GROUP BY key HAVING count(*) > 1 ORDER BY key"""


def repeated(root: Path, captioner: str, keys: pa.Array, counted: Path | None = None) -> Numbers:
    """Return beside how many different pictures each caption of a captioner stands, int64: `keys` as `caption_keys`
    gives them; 1 where it is said once, or where nothing was counted. `counted`: another table than the run's own."""
    found = np.ones(len(keys), np.int64)
    path = counted or root / TABLE
    if not path.is_file():
        return found
    with open_table(path) as file:
        for batch in file.iter_batches(BATCH):
            mine = batch.filter(pc.equal(batch["captioner"], captioner))
            place = pc.index_in(keys, value_set=mine["key"], skip_nulls=True)
            hit = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
            found[hit] = mine["pictures"].to_numpy()[place.drop_null().to_numpy()]
    return found
