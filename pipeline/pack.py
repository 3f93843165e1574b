"""pretokenize / pack: codes, captions and provenance into WebDataset shards, in an order drawn from hash(uid, seed)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.files import digest_of, read_table
from manifests.manifest import FileRecord, Manifest, ShardRecord
from manifests.schema import schema
from manifests.shards import index_path, write_shard
from manifests.uid import uid_hash_sql
from pipeline.encode import FINGERPRINT, Encode, grid_of
from pipeline.fetch import regroup
from pipeline.hands import Hands
from pipeline.plans import connect, files_sql, plan_folder, write_plan
from pipeline.steps import Step, Unit, records_of
from tokenize_shards.catalog import VQ_SPECS
from tokenize_shards.pack import Tokenizer, sample_parts

TEXTS = ("captioner", "caption", "short_caption", "model", "prompt")
SAID = pa.list_(pa.struct([pa.field(name, pa.string()) for name in TEXTS]))
PACKED = pa.schema([*schema("uid", "url", "text", "top_caption"), pa.field("said", SAID), pa.field("encoded", pa.string())])


@dataclass(frozen=True)
class Pack(Step):
    """Units are (tier, `pretokenize.shard_rows` samples in the packed order)."""

    name: ClassVar[str] = "pack"
    version: ClassVar[int] = 2

    @property
    def encode(self) -> Encode:
        """Return the step whose codes are packed."""
        return Encode(self.recipe, self.root, self.runtime)

    def settings(self) -> dict[str, Any]:
        """Return order and size of the shards, and which captions may be in them."""
        values = self.recipe.pretokenize
        return {
            "shard_rows": values.shard_rows,
            "seed": values.seed,
            "captions": {name: tier.caption for name, tier in self.recipe.tier.items()},
        }

    @property
    def parent(self) -> str:
        """Return the digest of the filter's manifest: where the samples come from."""
        return Manifest.read(self.root / "manifests" / "filter.json").digest

    def plan(self) -> list[Unit]:
        """Write the packed order to `manifests/plan/pack/`."""
        tables = [(f"{tier}-{number:05d}", table) for tier in self.recipe.tier for number, table in enumerate(self._order(tier))]
        contents = {record.shard: record.content for record in records_of(self.root, "encode")}
        units = []
        for name, path, sha256 in write_plan(self.root, self.name, tables):
            tier, _, number = name.rpartition("-")
            encoded = sorted(set(read_table(path, ["encoded"])["encoded"].to_pylist()))
            reads = {"plan": path.relative_to(self.root).as_posix(), "tier": tier, "number": number, "encoded": encoded}
            units.append(Unit(name, reads, digest_of([sha256, [contents[shard] for shard in encoded], self.parent])))
        return units

    def _order(self, tier: str) -> Iterator[pa.Table]:
        encoded = [
            self.root / record.files[0].path for record in records_of(self.root, "encode") if record.shard.rpartition("-")[0] == tier
        ]
        if not encoded:
            return
        captions = [
            self.root / r.files[0].path
            for r in records_of(self.root, "caption")
            if r.shard.rpartition("-")[0] == self.recipe.tier[tier].caption
        ]
        said = f"(SELECT NULL::BLOB AS uid, NULL::STRUCT({', '.join(f'{name} VARCHAR' for name in TEXTS)})[] AS said WHERE false)"
        if captions:
            packed = ", ".join(f"'{name}': {name}" for name in TEXTS)
            said = f"(SELECT uid, list({{{packed}}}) AS said FROM {files_sql(captions)} WHERE reason IS NULL GROUP BY uid)"
        query = f"""
            SELECT e.uid, i.url, i.text, i.top_caption, c.said, parse_filename(e.filename, true) AS encoded
            FROM {files_sql(encoded)} e JOIN {files_sql(sorted(plan_folder(self.root, "fetch").glob("*.parquet")))} i USING (uid)
            LEFT JOIN {said} c USING (uid) WHERE e.reason IS NULL ORDER BY {uid_hash_sql("e.uid", self.recipe.pretokenize.seed)}, e.uid"""
        with connect(self.root) as connection:
            rows = connection.execute(query).to_arrow_reader(self.recipe.pretokenize.shard_rows)
            for table in regroup(rows, self.recipe.pretokenize.shard_rows):
                yield table.cast(PACKED)

    def open(self) -> "PackWorker":
        """Return a worker; nothing to load."""
        return PackWorker(self, self.parent)

    def tokenizer(self, tier: str, encoded: Path) -> Tokenizer:
        """Return what made a tier's codes; the fingerprint of the tensors stands in the encoded file."""
        name, _ = self.recipe.tokenizer(tier)
        with pq.ParquetFile(encoded) as file:
            fingerprint = file.schema_arrow.metadata[FINGERPRINT.encode()].decode()
        stand_in = self.encode.tokenizer(tier).stand_in
        return Tokenizer(name, fingerprint, VQ_SPECS[name].codebook_size, grid_of(name, self.recipe.tier[tier].size), stand_in)


@dataclass(frozen=True)
class PackWorker:
    """Writes one shard of code samples and its index."""

    step: Pack
    parent: str

    def run(self, unit: Unit, hands: Hands) -> ShardRecord:
        """Write `codes/TIER/NUMBER.tar` and `.index.json`."""
        root, tier = self.step.root, unit.reads["tier"]
        path = root / "codes" / tier / f"{unit.reads['number']}.tar"
        with hands.holding(unit.name, ()):
            order = read_table(root / unit.reads["plan"])
            encoded = [root / "codes" / "encoded" / f"{name}.parquet" for name in unit.reads["encoded"]]
            codes, tokenizer = self._codes(encoded, order["uid"]), self.step.tokenizer(tier, encoded[0])
            samples = (
                (row["uid"].hex(), sample_parts({**row, **codes[row["uid"]]}, tier, tokenizer, self.parent)) for row in order.to_pylist()
            )
            count = write_shard(path, samples, index=True)
        files = (FileRecord.of(root, path), FileRecord.of(root, index_path(path)))
        return ShardRecord(unit.name, unit.key, files, order.num_rows, count)

    @staticmethod
    def _codes(paths: list[Path], uids: pa.ChunkedArray) -> dict[bytes, dict[str, Any]]:
        wanted = uids.combine_chunks()
        tables = (read_table(path) for path in paths)
        return {row["uid"]: row for table in tables for row in table.filter(pc.is_in(table["uid"], wanted)).to_pylist()}
