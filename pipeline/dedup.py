"""filter / dedup: cluster near duplicates by perceptual hash. Clusters only: who survives is a decision."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import read_table, write_table
from manifests.manifest import FileRecord, ShardRecord
from manifests.schema import schema
from pipeline.hands import Hands
from pipeline.steps import Step, Unit, records_of, upstream

CLUSTERS = pa.schema([*schema("uid"), pa.field("cluster", pa.binary(16))])
"""`dedup/*.parquet`: a row per decoded picture; `cluster` is the smallest uid of its connected component."""
MARKS = pa.schema([*schema("uid", "reason"), pa.field("detail", pa.string(), metadata={"says": "which list, hash or item, and how near"})])
"""`ledger/marks.parquet`: what lists and evaluation sets say of fetched rows, by uid and reason; a marked row never wins a cluster.

`reason` is `removed`, `placeholder` or `in_eval_set`; a row may have several marks. decide gives a row its first mark.
"""


@dataclass(frozen=True)
class Dedup(Step):
    """One unit: connected components of pHashes within the radius, over all decoded pictures."""

    name: ClassVar[str] = "dedup"
    version: ClassVar[int] = 2
    beam: ClassVar[bool] = False

    def settings(self) -> dict[str, Any]:
        """Return [dedup]."""
        return dict(self.recipe.plain()["dedup"])

    def plan(self) -> list[Unit]:
        """Take all scores at once."""
        return [Unit("00000", {}, upstream(self.root, "score"))]

    def open(self) -> "Dedup":
        """Return itself: nothing to load."""
        return self

    def run(self, unit: Unit, hands: Hands) -> ShardRecord:
        """Write `dedup/00000.parquet` and `ledger/marks.parquet`."""
        from filters.dedup import clusters

        tables = [read_table(self.root / r.files[0].path, ["uid", "phash"]) for r in records_of(self.root, "score")]
        table = pa.concat_tables(tables) if tables else schema("uid", "phash").empty_table()
        table = table.filter(pc.is_valid(table["phash"])).sort_by("uid")
        labels = clusters(table["phash"].to_numpy().astype(np.uint64), self.recipe.dedup.radius)
        uids = table["uid"].combine_chunks()
        made = pa.table([uids, uids.take(pa.array(labels))], schema=CLUSTERS)
        marks = MARKS.empty_table()
        paths = self.root / "dedup" / "00000.parquet", self.root / "ledger" / "marks.parquet"
        for path, table in zip(paths, (made, marks), strict=True):
            write_table(path, table)
        return ShardRecord("00000", unit.key, tuple(FileRecord.of(self.root, path) for path in paths), made.num_rows, made.num_rows)
