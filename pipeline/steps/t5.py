"""pretokenize / t5: flan-T5 features of one caption of each encoded pair, where the recipe wants them stored.

Its shards are the packed ones, whose order and cut need no feature: features lie where they are packed, and never move.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.files import FORMAT, digest_of, read_schema, read_table, writing
from manifests.journal import FileRecord, ShardRecord, records_of
from manifests.plans import Planned, write_plan
from manifests.query import connect, files_sql
from manifests.schema import schema
from manifests.tables import DRAW, FEATURES
from manifests.uid import uid_hash_sql
from manifests.weights import WeightsFile
from pipeline.execution.decode_pool import Pair
from pipeline.execution.in_flight import InFlight
from pipeline.execution.reuse import MADE_BY, earlier_rows
from pipeline.execution.step import Step, Unit
from pipeline.steps.kept_pairs import Row
from pipeline.steps.pack_order import PackOrder
from pipeline.steps.stored_features import StoredFeatures
from pipeline.steps.worker_loop import Earlier, Rows, WorkerLoop, complete
from tokenize_shards.samples import finite_numbers
from tokenize_shards.text import MAX_TOKENS, T5Features, check_t5

PLANNING = 2
"""Raised when the same captions are planned in another way."""
PLANNED = pa.schema([*schema("uid"), DRAW, pa.field("caption", pa.string())])
CHUNK = 256  # rows encoded and written at a time: 60 MB of flan-t5-xl's
ROW_GROUP_ROWS = 8
"""2 MB of flan-t5-xl's: what is read of a table where a few of its rows are taken over."""
NOT_FINITE = "not_finite"
"""Why a pair has no stored features though it has its caption: one of them is NaN or infinite, in bf16 too."""
TOKENS_PER_CHARACTER = 0.25  # of English captions, for the estimate alone


@dataclass(frozen=True)
class T5(Step):
    """Units are the packed shards; there are none where features are computed online, as the trainer needs them."""

    name: ClassVar[str] = "t5"
    version: ClassVar[int] = 2
    carries: ClassVar[bool] = True
    on_card: ClassVar[bool] = True
    made_from: ClassVar[str] = "caption_sha256"
    needs: ClassVar[tuple[type[Step], ...]] = (PackOrder,)

    @property
    def stored(self) -> StoredFeatures:
        """Return which features are stored, where there are any."""
        return StoredFeatures(self.recipe)

    @property
    def wanted(self) -> bool:
        """Tell whether features are to be stored."""
        return self.stored.wanted

    def settings(self) -> dict[str, Any]:
        """Return which caption is encoded, how, and what for."""
        values = self.recipe.pretokenize
        if not self.wanted:
            return {"t5": values.t5}
        return {
            "t5": values.t5,
            "caption": values.t5_caption,
            "dtype": values.t5_dtype,
            "batch_size": values.t5_batch_size,
        }

    def weights(self) -> tuple[WeightsFile, ...]:
        """Return the T5, where it is used. Raises WeightsError."""
        return self.stored.weights()

    def check(self) -> None:
        """Read the T5's parameters, where it is used. Raises WeightsError for one that is NaN or infinite."""
        if self.wanted:
            check_t5(self.recipe.pretokenize.t5_weights)

    def plan(self) -> list[Unit]:
        """Write whose captions are encoded to `manifests/plan/t5/`."""
        if not self.wanted:
            return []
        packed = PackOrder(self.recipe, self.root, self.runtime).packed()
        values = self.recipe.pretokenize
        planned_from = [values.t5_caption, values.seed, [[name, sha256] for name, _, sha256 in packed]]
        made_from = digest_of([self.name, PLANNING, planned_from])
        reads = {"made_by": self.own_key}
        return [
            Unit(name, {**reads, "plan": path.relative_to(self.root).as_posix()}, digest_of([sha256]))
            for name, path, sha256 in write_plan(self.root, self.name, self._captions(packed), made_from)
        ]

    def _captions(self, packed: Planned) -> Iterator[tuple[str, pa.Table]]:
        """Yield (packed shard, its captions in its order)."""
        draw = uid_hash_sql("uid", self.recipe.pretokenize.seed)
        with connect(self.root) as connection:
            for name, path, _ in packed:
                caption = self.stored.caption_from(read_schema(path).field("said").type)
                columns = f"uid, {draw} AS draw, {caption} AS caption"
                query = f"SELECT {columns} FROM {files_sql([path])} ORDER BY file_row_number"
                yield name, connection.execute(query).to_arrow_table().cast(PLANNED)

    def plan_notes(self, units: Sequence[Unit]) -> list[str]:
        """Say what the features will take, from the lengths of the planned captions in characters, and what is there of
        another cut."""
        if not self.wanted:
            return []
        lengths: Counter[int] = Counter()
        for unit in units:
            count = pc.utf8_length(read_table(self.root / unit.reads["plan"], ["caption"])["caption"])
            found = pc.value_counts(count.filter(pc.greater(count, 0)))
            lengths.update(dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True)))
        return [estimate(lengths, self.stored.width), *self._taken_over(units)]

    def _taken_over(self, units: Sequence[Unit]) -> Iterator[str]:
        """Say how many features, made as these would be, lie in shards that these units are not."""
        note, keys = self.journal.note(), {unit.name: unit.key for unit in units}
        if note is None or note["own_key"] != self.own_key:
            return
        others = [record for record in records_of(self.root, self.name) if record.key != keys.get(record.shard)]
        if count := sum(record.rows_out for record in others):
            yield (
                f"t5: {count:,} features lie in {len(others):,} shards of before, cut in another way or of other pairs:"
                " those of the same captions are taken over, not computed again"
            )

    def open(self) -> "T5Worker":
        """Load the T5, on a GPU where there is one."""
        import torch

        values, on_gpu = self.recipe.pretokenize, torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
        encoder = T5Features(
            values.t5_weights, "bf16" if on_gpu else "fp32", batch_size=values.t5_batch_size, device=device
        )
        return T5Worker(self, encoder)

    def facts(self) -> dict[str, Any]:
        """Return `t5`: tier -> how many of its pairs have stored features, and why others have none; nothing where
        features are made online."""
        facts: dict[str, Any] = {}
        for record in records_of(self.root, self.name) if self.wanted else ():
            counts = facts.setdefault(
                record.shard.rpartition("-")[0],
                {"caption": self.recipe.pretokenize.t5_caption, "with": 0, "without": {}},
            )
            counts["with"] += record.rows_out
            counts["without"] = dict(sorted((Counter(counts["without"]) + Counter(record.dropped)).items()))
        return {"t5": facts} if facts else {}


def estimate(lengths: Mapping[int, int], width: int) -> str:
    """Return one line that says what the features of captions of these lengths (characters -> how many) will take on
    disk."""
    there = sum(lengths.values())
    tokens = sum(min(MAX_TOKENS, 2 + int(length * TOKENS_PER_CHARACTER)) * count for length, count in lengths.items())
    about, padded = tokens * width * 2, there * MAX_TOKENS * width * 2
    return (
        f"t5: features of {there:,} captions will take about {size_text(about)} ({size_text(padded)} if padded to"
        f" {MAX_TOKENS} tokens; 50 million padded captions of flan-t5-xl would take 24.6 TB): pretokenize.t5 = 'online'"
        " stores none"
    )


def size_text(count: float) -> str:
    """Return a number of bytes for people: 1,230,000 is 1.23 MB."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:,.0f} {units[0]}" if units[0] == "bytes" else f"{count:,.2f} {units[0]}"


@dataclass(frozen=True)
class T5Worker:
    """Encodes a shard's captions, shortest bucket first, and writes them in the planned order."""

    step: T5
    encoder: T5Features

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `codes/t5/NAME.parquet`."""
        root, made_by = self.step.root, unit.reads["made_by"]
        plan = read_table(root / unit.reads["plan"]).to_pylist()
        path = root / "codes" / "t5" / f"{unit.name}.parquet"
        earlier = earlier_rows(root, "t5", made_by, [row["uid"] for row in plan], self.step.made_from)
        facts = {MADE_BY: made_by, "tessera_format": str(FORMAT), "width": str(self.encoder.dim)}
        dropped: Counter[str] = Counter()
        with (
            writing(path) as temporary,
            pq.ParquetWriter(temporary, FEATURES.with_metadata(facts), compression="zstd") as file,
        ):
            for start in range(0, len(plan), CHUNK):
                made = self._rows(unit, in_flight, plan[start : start + CHUNK], earlier)
                dropped.update(row["reason"] for row in made if row["reason"])
                file.write_table(pa.Table.from_pylist(made, schema=FEATURES.with_metadata(facts)), ROW_GROUP_ROWS)
        return ShardRecord(
            unit.name, unit.key, (FileRecord.of(root, path),), len(plan), len(plan) - dropped.total(), dict(dropped)
        )

    def _rows(self, unit: Unit, in_flight: InFlight, plan: list[Row], earlier: Earlier) -> list[Row]:
        """Return the finished rows of a chunk of the plan: a batch of the loop, so that the encoder may order them by
        length."""
        captions = [(row["uid"], row["caption"].encode()) for row in plan if row["caption"]]
        loop = WorkerLoop(unit.name, in_flight, CHUNK, bytes.decode)
        rows = loop.run(captions, earlier, lambda pairs, texts: partial(self._encoded, pairs, texts))
        return complete(map(_planned, plan), rows)

    def _encoded(self, pairs: list[Pair], captions: list[str]) -> Rows:
        rows: Rows = {}
        for (uid, _), features in zip(pairs, self.encoder.features(captions), strict=True):
            stored = finite_numbers(features, self.step.recipe.pretokenize.t5_dtype)
            if stored is None:
                rows[uid] = {"reason": NOT_FINITE}
                continue
            numbers, dtype = stored
            rows[uid] = {"tokens": len(numbers), "features": numbers.tobytes(), "dtype": dtype, "reason": None}
        return rows


def _planned(row: Row) -> Row:
    """Return what stands in a row whatever becomes of it; one without a caption is done with its reason."""
    if not row["caption"]:
        return {"uid": row["uid"], "draw": row["draw"], "reason": "missing_value"}
    sha256 = hashlib.sha256(row["caption"].encode()).digest()
    return {"uid": row["uid"], "draw": row["draw"], "caption_sha256": sha256}
