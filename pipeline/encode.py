"""pretokenize / encode: kept pictures of each tier to VQ codes, keyed by picture, tokenizer and crop."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import digest_of, read_table, write_table
from manifests.manifest import ShardRecord
from manifests.schema import schema
from manifests.uid import uid_hash
from manifests.weights import WeightsFile
from pipeline.hands import Hands, batches
from pipeline.kept import decode, fresh, kept_by_shard, pair_jpegs, record_of, shard_contents
from pipeline.plans import write_plan
from pipeline.reuse import earlier_rows, stamp
from pipeline.steps import Step, Unit
from tokenize_shards.catalog import VQ_SPECS, vq_weights

if TYPE_CHECKING:
    from tokenize_shards.encode import Encoder

CROP = "center"
FINGERPRINT = "tessera_tokenizer"
"""Parquet metadata: sha256 over the tokenizer's tensors."""
ENCODED = pa.schema(
    [
        *schema("uid", "sha256"),
        pa.field("size", pa.int16(), metadata={"says": "side of the crop, pixels"}),
        pa.field("crop", pa.string(), metadata={"says": "center: ADM centre crop"}),
        pa.field("flip", pa.bool_()),
        pa.field("n_crops", pa.int16()),
        pa.field("codes", pa.list_(pa.uint16()), metadata={"says": "n_crops x n_tokens codes, raster order"}),
        *schema("reason"),
    ]
)
"""`codes/encoded/*.parquet`: a row per picture and tier; reason is null where there are codes."""


@dataclass(frozen=True)
class Encode(Step):
    """Units are (tier, shard of pairs)."""

    name: ClassVar[str] = "encode"
    version: ClassVar[int] = 1
    carries: ClassVar[bool] = True

    def tokenizer(self, tier: str) -> WeightsFile:
        """Return the identity of a tier's tokenizer."""
        return vq_weights(*self.recipe.tokenizer(tier))

    def made_by(self, tier: str) -> str:
        """Return the digest of what a picture's codes in this tier depend on beside the picture."""
        name, _ = self.recipe.tokenizer(tier)
        size, precision = self.recipe.tier[tier].size, self.recipe.pretokenize.precision
        return digest_of([self.version, name, self.tokenizer(tier).record(), size, CROP, precision, self.recipe.pretokenize.batch_size])

    def settings(self) -> dict[str, Any]:
        """Return each tier's tokenizer, size and number of pairs."""
        tiers = {
            name: [self.recipe.tokenizer(name)[0], tier.size, tier.max_pairs, self.tokenizer(name).record()]
            for name, tier in self.recipe.tier.items()
        }
        values = self.recipe.pretokenize
        return {"tiers": tiers, "crop": CROP, "precision": values.precision, "batch_size": values.batch_size, "seed": values.seed}

    def weights(self) -> tuple[WeightsFile, ...]:
        """Return every tier's tokenizer, once each."""
        return tuple(dict.fromkeys(self.tokenizer(tier) for tier in self.recipe.tier))

    def plan(self) -> list[Unit]:
        """Write who is to be encoded to `manifests/plan/encode/`."""
        tables = [(f"{tier}-{shard}", table) for tier in self.recipe.tier for shard, table in self._chosen(tier)]
        contents, units = shard_contents(self.root), []
        for name, path, sha256 in write_plan(self.root, self.name, tables):
            tier, _, shard = name.rpartition("-")
            reads = {
                "plan": path.relative_to(self.root).as_posix(),
                "tar": f"pairs/{shard}.tar",
                "tier": tier,
                "made_by": self.made_by(tier),
            }
            units.append(Unit(name, reads, digest_of([sha256, contents[shard], self.made_by(tier)])))
        return units

    def _chosen(self, tier: str) -> list[tuple[str, pa.Table]]:
        shards = list(kept_by_shard(self.root, [tier]))
        most = self.recipe.tier[tier].max_pairs
        if most is None:
            return shards
        ranked = sorted((uid_hash(uid, self.recipe.pretokenize.seed), uid) for _, table in shards for uid in table["uid"].to_pylist())
        chosen = pa.array([uid for _, uid in ranked[:most]], pa.binary(16))
        cut = [(shard, table.filter(pc.is_in(table["uid"], chosen))) for shard, table in shards]
        return [(shard, table) for shard, table in cut if table.num_rows]

    def open(self) -> "EncodeWorker":
        """Load every tier's tokenizer, once each."""
        from tokenize_shards.encode import Encoder
        from tokenize_shards.vq import load_vq

        kinds = {self.recipe.tokenizer(tier) for tier in self.recipe.tier}
        encoders = {kind: Encoder(load_vq(*kind), self.recipe.pretokenize.precision) for kind in sorted(kinds)}
        return EncodeWorker(self, {tier: encoders[self.recipe.tokenizer(tier)] for tier in self.recipe.tier})


@dataclass(frozen=True)
class EncodeWorker:
    """Encodes a shard's planned pictures in batches of one shape."""

    step: Encode
    encoders: "dict[str, Encoder]"

    def run(self, unit: Unit, hands: Hands) -> ShardRecord:
        """Write `codes/encoded/NAME.parquet`."""
        root, tier, made_by = self.step.root, unit.reads["tier"], unit.reads["made_by"]
        wanted = read_table(root / unit.reads["plan"])["uid"].to_pylist()
        path = root / "codes" / "encoded" / f"{unit.name}.parquet"
        rows: dict[bytes, dict[str, Any]] = {}
        jpegs = fresh(pair_jpegs(root / unit.reads["tar"], set(wanted)), earlier_rows(root, "encode", made_by, wanted), rows)
        for batch in batches(jpegs, self.step.recipe.pretokenize.batch_size, hands):
            with hands.holding(unit.name, [uid for uid, _ in batch]):
                self._encode([pair for pair in batch if not hands.deadly(pair[0])], tier, rows)
        made = [rows.get(uid, {"uid": uid, "reason": "worker_died"}) for uid in wanted]
        write_table(path, stamp(pa.Table.from_pylist(made, schema=ENCODED), made_by, **{FINGERPRINT: self.encoders[tier].fingerprint}))
        return record_of(root, unit, path, made)

    def _encode(self, pairs: list[tuple[bytes, bytes]], tier: str, rows: dict[bytes, dict[str, Any]]) -> None:
        size = self.step.recipe.tier[tier].size
        images = decode(pairs, rows, self.step.recipe.fetch.max_pixels, size=size, crop=CROP, flip=False)
        if images:
            codes = self.encoders[tier].encode_images([image for _, image in images], size, self.step.recipe.pretokenize.batch_size)
            for (uid, _), crops in zip(images, codes, strict=True):
                rows[uid].update(n_crops=len(crops), codes=crops.reshape(-1))


def grid_of(vq: str, size: int) -> int:
    """Return the side of the code grid of a picture of `size` pixels."""
    return size // VQ_SPECS[vq].downsampling
