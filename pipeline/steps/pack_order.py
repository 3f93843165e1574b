"""pretokenize / pack, before its plan: every tier's samples by equal ranges of the packed order, an order of hashes.

The plan of the fetch, captions and codes of a number hold the same rows, so that samples are put together some shards
at a time. Where features are to be stored, the tokenizer says here how long each will be: the order and its cut stand
before the first feature is made, and features are made where they are packed.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.func import FunctionNullHandling, PythonUDFType

from manifests.files import digest_of
from manifests.journal import ShardRecord, by_kind, records_of, upstream
from manifests.plans import Planned, plan_digest, planned_tables, standing_plan, write_plan
from manifests.query import batches, connect, files_sql
from manifests.tables import PACKED, PACKED_BEFORE
from manifests.tombstones import read_tombstones, tombstones_sha256
from manifests.uid import uid_hash, uid_hash_sql
from pipeline.execution.delivered import Delivered, Rows
from pipeline.execution.shuffle import SLICE_BYTES, Leg, here, sweep_scratch
from pipeline.execution.slices import Piece
from pipeline.execution.step import Do, Unit
from pipeline.recipes.captions import caption_setting, captioners_of
from pipeline.steps.captions import BEFORE, TEXTS, captions_of_before, texts_of
from pipeline.steps.encode import grid_of
from pipeline.steps.sharding import cut_shards, in_batches, without_gaps
from pipeline.steps.stored_features import StoredFeatures

PLANNING, PLANNING_BEFORE = 2, 1
"""Raised when the same samples are planned in another way; where captions were not judged they are planned as before
there was a judge, so that such a run keeps its plan, its cut and its shards."""
STEP = "pack"
"""Whose plan it is."""
OVERHEAD_BYTES = 6 * 1024
"""At most of a sample beside its codes, captions and features: tar headers and their padding, .npy headers, the rest of
the JSON."""
CROP_BYTES = 200
"""At most of a crop's entry in the JSON."""
ESCAPED = r'[\x00-\x1f"\\]'
"""Characters that JSON escapes: the control characters, the quote, the backslash."""
ESCAPE_BYTES = 6
"""Bytes of the longest escape, `\\u0000`."""
SAMPLES = pa.schema([pa.field("draw", pa.uint64()), pa.field("bytes", pa.int64()), *PACKED])
"""A sample on its way to its place in the packed order."""
BESIDE_TEXTS = ", ".join(
    f"'{name}': x.{name}" for name in TEXTS if name not in ("caption", "short_caption", "fit_caption")
)
"""SQL of what stands beside each text of a captioner."""
ALL_OF_BEFORE = ", ".join(f"'{name}': x.{name}" for name in BEFORE)
"""SQL of what there is of captions that were not judged."""
SAMPLE_BYTES = 500
"""About what a sample with its captions takes there."""
SHARDS, COUNTED_SHARDS = 64, 16
"""Encoded shards whose samples are put together in one unit; where tokens are counted, which takes most of it."""
FEW_COUNTED = 10_000
"""Samples whose tokens the driver counts itself: about a second and a half of them."""
Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class PackOrder(Leg):
    """Units are runs of a tier's encoded shards; the parts are ranges of each tier's draws."""

    name: ClassVar[str] = "pack_order"
    into: ClassVar[str] = "pack_order"
    carried: ClassVar[pa.Schema] = SAMPLES

    @cached_property
    def features(self) -> StoredFeatures:
        """Return which features are packed, where there are any."""
        return StoredFeatures(self.recipe)

    def is_small(self, pending: Sequence[Unit]) -> bool:
        """Tell whether the driver does units sooner than workers have started."""
        rows = sum(unit.reads["rows"] for unit in pending)
        return super().is_small(pending) and (rows <= FEW_COUNTED or not self.features.wanted)

    def made_of(self) -> str:
        """Return a digest of everything that the plan of pack depends on."""
        values = self.recipe.pretokenize
        names = captioners_of if self.has_verdicts else caption_setting
        tiers = [[name, names(tier), self.weights_of(name)] for name, tier in self.recipe.tier.items()]
        read = [
            upstream(self.root, "encode", "judge" if self.has_verdicts else "caption"),
            plan_digest(self.root, "fetch"),
            tombstones_sha256(self.root),
        ]
        stored = [values.t5_caption, [file.record() for file in self.features.weights()]]
        counted = [stored] if self.features.wanted else []
        planning = PLANNING if self.has_verdicts else PLANNING_BEFORE
        return digest_of([STEP, planning, values.shard_rows, values.shard_bytes, values.seed, tiers, read, *counted])

    @cached_property
    def has_verdicts(self) -> bool:
        """Tell whether there are captions that were judged: what is packed of others is what was before there was a
        judge."""
        return bool(records_of(self.root, "judge"))

    @cached_property
    def encoded(self) -> dict[str, list[ShardRecord]]:
        """Return tier -> the records of its encoded shards."""
        return by_kind(records_of(self.root, "encode"))

    @cached_property
    def ranges(self) -> int:
        """Return into how many ranges a tier's draws are split."""
        rows = max((sum(one.rows_out for one in records) for records in self.encoded.values()), default=0)
        return max(1, -(-rows * SAMPLE_BYTES // SLICE_BYTES))

    def packed(self) -> Planned:
        """Write who is in which packed shard to `manifests/plan/pack/`, where that does not stand; return name, path
        and sha256 of each table."""
        tables = (
            (f"{tier}-{number:05d}", table) for tier in self.recipe.tier for number, table in enumerate(self._cut(tier))
        )
        planned = write_plan(self.root, STEP, tables, self.made_of())
        sweep_scratch(self.root, self.into)
        return planned

    def _cut(self, tier: str) -> Iterator[pa.Table]:
        """Yield the packed shards of a tier; a removed sample leaves its place empty."""
        values = self.recipe.pretokenize
        self.make()
        rows = in_batches(self.in_order(tier), values.shard_rows)
        for table in cut_shards(rows, values.shard_rows, values.shard_bytes):
            yield without_gaps(table).select(PACKED.names).cast(PACKED if self.has_verdicts else PACKED_BEFORE)

    def make(self, do: Do = here, grouped: bool = False) -> None:
        """Do what is not done of its units, where the plan does not stand."""
        if standing_plan(self.root, STEP, self.made_of()) is None:
            PackOrdered(self.recipe, self.root, self.runtime).make(do, grouped)

    def plan(self) -> list[Unit]:
        """Return a unit for some encoded shards of a tier."""
        made_of, tiers = self.made_of(), list(self.recipe.tier)
        units = []
        for place, tier in enumerate(tiers):
            for number, (rows, files) in enumerate(self._runs(tier)):
                reads = {"tier": tier, "files": files, "rows": rows, "first": place * self.ranges}
                reads |= {"ranges": self.ranges, "parts": len(tiers) * self.ranges}
                units.append(Unit(f"{tier}-{number:05d}", reads, digest_of([made_of, self.ranges, files])))
        return units

    def _runs(self, tier: str) -> Iterator[tuple[int, dict[str, list[str]]]]:
        """Yield rows, and the paths of the tables that hold them by step, of each run of a tier's encoded shards."""
        names = captioners_of(self.recipe.tier[tier])
        planned = {path.stem: path.relative_to(self.root).as_posix() for path in planned_tables(self.root, "fetch")}
        records = records_of(self.root, "judge") if self.has_verdicts else captions_of_before(self.root)
        captions = {record.shard: record.files[0].path for record in records}
        for some in batches(self.encoded.get(tier, []), COUNTED_SHARDS if self.features.wanted else SHARDS):
            numbers = [record.shard.rpartition("-")[2] for record in some]
            said = [captions.get(f"{name}-{number}") for name in names for number in numbers]
            files = {
                "encode": [record.files[0].path for record in some],
                "fetch": [planned[number] for number in numbers if number in planned],
                ("caption" if self.has_verdicts else "before"): [path for path in said if path],
            }
            yield sum(record.rows_in for record in some), files

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield samples with their ranges."""
        files, tier, ranges = unit.reads["files"], unit.reads["tier"], np.uint64(unit.reads["ranges"])
        if not files["fetch"]:
            return
        for batch in self._samples(tier, files):
            columns = [batch[field.name].cast(field.type) for field in SAMPLES]
            yield (
                unit.reads["first"] + range_of(batch["draw"].to_numpy(), ranges),
                pa.RecordBatch.from_arrays(columns, schema=SAMPLES),
            )

    def _samples(
        self, tier: str, files: dict[str, list[str]], asked: pa.Array | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the samples in these tables, all or those with the uids that are asked for, in no order."""
        query, weights = self._samples_sql(tier, files), self.weights_of(tier)
        token = weights.pop("token")
        with self._connect() as connection:
            if asked is not None:
                connection.register("asked", pa.table({"uid": asked}))
                query = f"FROM ({query}) SEMI JOIN asked USING (uid)"
            for batch in connection.execute(query, weights).to_arrow_reader(50_000):
                if self.features.wanted:
                    stored = pa.array(self.features.tokens(batch["caption"]) * token)
                    place = batch.schema.get_field_index("bytes")
                    batch = batch.set_column(place, "bytes", pc.add(batch["bytes"], stored))
                yield batch

    def in_order(self, tier: str) -> Iterator[pa.Table]:
        """Yield a tier's samples, and the places of removed ones (`gone`), in the packed order: a table for each
        range."""
        if tier not in self.encoded:
            return
        rows, first = Rows.of(PackOrdered, self.root), list(self.recipe.tier).index(tier) * self.ranges
        gaps, own = self._gaps(tier), range_of
        place = own(gaps["draw"].to_numpy(), np.uint64(self.ranges))
        for number in range(self.ranges):
            samples = rows.of_part(first + number)
            samples = samples.append_column("gone", pa.array(np.zeros(samples.num_rows, bool)))
            both = pa.concat_tables([samples, gaps.filter(pa.array(place == number))])
            yield both.sort_by([("draw", "ascending"), ("uid", "ascending")])

    def _gaps(self, tier: str) -> pa.Table:
        """Return the places that removed samples leave empty: the others stay in their shards."""
        gaps, seed = read_tombstones(self.root).packed(tier), self.recipe.pretokenize.seed
        rows = [{"uid": uid, "draw": uid_hash(uid, seed), "bytes": size, "gone": True} for uid, size in gaps.items()]
        return pa.Table.from_pylist(rows, schema=SAMPLES.append(pa.field("gone", pa.bool_())))

    def sizes(self, tier: str, uids: Collection[bytes]) -> dict[bytes, int]:
        """Return the bytes that these samples of a tier count."""
        sizes: dict[bytes, int] = {}
        asked = pa.array(sorted(uids), pa.binary())
        for _, files in self._runs(tier):
            for batch in self._samples(tier, files, asked) if files["fetch"] else ():
                sizes.update(zip(batch["uid"].to_pylist(), batch["bytes"].to_pylist(), strict=True))
        return sizes

    @contextlib.contextmanager
    def _connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open DuckDB with the function `json_bytes`."""
        with connect(self.root) as connection:
            connection.create_function(
                "json_bytes",
                json_bytes,
                [duckdb.sqltype("VARCHAR")],
                duckdb.sqltype("BIGINT"),
                type=PythonUDFType.ARROW,
                null_handling=FunctionNullHandling.SPECIAL,
            )
            yield connection

    def _samples_sql(self, tier: str, files: dict[str, list[str]]) -> str:
        """Return SQL of the samples in these tables in no order, with an upper bound on the bytes of each in the tar
        beside its features. Its parameters are those of `weights_of`, without `token`."""
        paths: dict[str, list[Path]] = {step: [self.root / path for path in some] for step, some in files.items()}
        draw, names = uid_hash_sql("e.uid", self.recipe.pretokenize.seed), captioners_of(self.recipe.tier[tier])
        judged = "caption" in paths
        texts = texts_of(paths["fetch"], paths["caption" if judged else "before"], names, judged)
        # of judged captions a text stands in the sample once, what is said of it up to three times
        whole, twice = ("json_bytes(t.said::VARCHAR)", BESIDE_TEXTS) if judged else ("0", ALL_OF_BEFORE)
        return f"""
            WITH e AS (FROM {files_sql(paths["encode"])}), t AS {texts}
            SELECT e.uid::BLOB AS uid, t.url, t.text, t.top_caption, t.said, {draw} AS draw,
                   parse_filename(e.filename, true) AS encoded, {self.features.caption_sql} AS caption,
                   e.n_crops::BIGINT * $crop + json_bytes(t.text) + json_bytes(t.top_caption) + json_bytes(t.url)
                   + {whole} + 2 * json_bytes([{{{twice}}} FOR x IN t.said]::VARCHAR) + $sample AS bytes
            FROM e JOIN t USING (uid)
            WHERE e.reason IS NULL"""

    def weights_of(self, tier: str) -> dict[str, int]:
        """Return the bytes at most of a crop's codes and entry, of a token's features, and of the rest of a sample."""
        codes = 2 * grid_of(self.recipe.tokenizer(tier)[0], self.recipe.tier[tier].size) ** 2
        token = 2 * self.features.width if self.features.wanted else 0
        return {"crop": codes + CROP_BYTES, "token": token, "sample": OVERHEAD_BYTES}


@dataclass(frozen=True)
class PackOrdered(Delivered):
    """Every tier's samples, for the cut into packed shards."""

    name: ClassVar[str] = "pack_ordered"
    legs: ClassVar[tuple[type[Leg], ...]] = (PackOrder,)
    key: ClassVar[tuple[str, ...]] = ("draw", "uid")


def range_of(draws: Numbers, ranges: np.uint64) -> Numbers:
    """Return which of the equal ranges of 64 bits each draw is in: (N,) int64."""
    found: Numbers = (((draws.astype(np.uint64) >> np.uint64(32)) * ranges) >> np.uint64(32)).astype(np.int64)
    return found


def json_bytes(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return an upper bound (int64) on the bytes of each text in JSON beside its quotes: every escape counts as the
    longest; 0 for null."""
    escaped = pc.count_substring_regex(texts, pattern=ESCAPED).cast(pa.int64())
    size = pc.add(pc.binary_length(texts).cast(pa.int64()), pc.multiply(escaped, ESCAPE_BYTES - 1))
    return pc.fill_null(size, 0)
