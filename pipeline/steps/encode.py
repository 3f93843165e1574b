"""pretokenize / encode: kept pictures of each tier to VQ codes, keyed by picture, tokenizer and crop."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.images.decode import ImageFault, ImageLimits, open_picture
from manifests.files import FormatError, canonical_json, digest_of, parsing, read_schema, read_table, write_table
from manifests.journal import ShardRecord, records_of, upstream
from manifests.plans import write_plan
from manifests.recipe_file import read_headed
from manifests.tables import ENCODED
from manifests.tombstones import read_tombstones, tombstones_sha256
from manifests.uid import uid_hash
from manifests.weights import STAND_IN, WeightsError, WeightsFile
from pipeline.execution.decode_pool import Decoders, Pair
from pipeline.execution.in_flight import InFlight
from pipeline.execution.reuse import earlier_rows, stamp
from pipeline.execution.step import Step, Unit
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import Recipe
from pipeline.steps.kept_pairs import kept_by_shard, lowest_draws, opened_rows, record_of, shard_content, unit_pairs
from pipeline.steps.worker_loop import Finish, Rows, WorkerLoop, complete
from tokenize_shards.catalog import DEMO, VQ_SPECS, vq_weights
from tokenize_shards.crops import CropPlan, crops_of

if TYPE_CHECKING:
    from tokenize_shards.agreement import Agreement
    from tokenize_shards.encode import Encoder

PLANNING = 1
"""Raised when the same rows are planned in another way."""
FINGERPRINT = "tessera_tokenizer"
"""Parquet metadata: sha256 over the tokenizer's tensors."""
ROW_GROUP_ROWS = 512
"""A packed shard takes a narrow range of `draw` from every encoded file, and reads only the row groups that hold it."""
AGREEMENT = "tessera_agreement"
"""Parquet metadata: share of codes that float32 gives too, over how many, measured on fixed pictures as the step
started."""
REPORT = "tessera_checkpoint"
"""Parquet metadata: tensors, parameters, codebook and its use as the tokenizer's checkpoint has them, and crops per
batch."""
Cut = tuple[dict[str, Any], "np.ndarray[Any, Any]"]
"""A crop: what is noted of it, and its pixels (size, size, 3) uint8."""


@dataclass(frozen=True)
class Encode(Step):
    """Units are (tier, shard of pairs)."""

    name: ClassVar[str] = "encode"
    version: ClassVar[int] = 3
    carries: ClassVar[bool] = True
    on_card: ClassVar[bool] = True
    counts_rows: ClassVar[bool] = True

    def tokenizer(self, tier: str) -> WeightsFile:
        """Return the identity of a tier's tokenizer: of a file that is gone since, as the run noted it, for nothing may
        be left to encode.

        Raises WeightsError.
        """
        try:
            return vq_weights(*self.recipe.tokenizer(tier))
        except WeightsError:
            noted = self._noted(tier)
            if noted is None:
                raise
            return noted

    def _noted(self, tier: str) -> WeightsFile | None:
        """Return which weights this step was last done with, where the run's recipe named the same file for the
        tier."""
        try:
            with parsing(self.root / "recipe.toml", "names no weights of this step"):
                before = parse_recipe(read_headed(self.root / "recipe.toml"))
                if before.tokenizer(tier) == self.recipe.tokenizer(tier):
                    return WeightsFile(**(self.journal.note() or {})["settings"]["tiers"][tier][3])
        except (OSError, FormatError):
            pass
        return None

    def made_by(self, tier: str) -> str:
        """Return the digest of what a picture's codes in this tier depend on beside the picture."""
        name, _ = self.recipe.tokenizer(tier)
        size = self.recipe.tier[tier].size
        return digest_of(
            [self.version, name, self.tokenizer(tier).record(), size, crop_plan(self.recipe).label, self._arithmetic()]
        )

    def _arithmetic(self) -> dict[str, Any]:
        """Return what the last bits of latents depend on."""
        values = self.recipe.pretokenize
        return {"precision": values.precision, "batch_size": values.batch_size, "fused": values.fused}

    def settings(self) -> dict[str, Any]:
        """Return each tier's tokenizer, size and number of pairs."""
        tiers = {
            name: [self.recipe.tokenizer(name)[0], tier.size, tier.max_pairs, self.tokenizer(name).record()]
            for name, tier in self.recipe.tier.items()
        }
        values = self.recipe.pretokenize
        limits = {"min_agreement": values.min_agreement} if values.precision != "fp32" or values.fused else {}
        return {
            "tiers": tiers,
            "crop": crop_plan(self.recipe).label,
            "seed": values.seed,
            **self._arithmetic(),
            **limits,
        }

    def weights(self) -> tuple[WeightsFile, ...]:
        """Return every tier's tokenizer, once each."""
        return tuple(dict.fromkeys(self.tokenizer(tier) for tier in self.recipe.tier))

    def check(self) -> None:
        """Read every tokenizer that is a file of the user's. Raises WeightsError for one that is not the tier's,
        damaged or unsafe."""
        kinds = {self.recipe.tokenizer(tier) for tier in self.recipe.tier}
        files = sorted(kind for kind in kinds if kind[1] not in (STAND_IN, DEMO))
        if files:
            from tokenize_shards.vq import check_vq

            for kind in files:
                check_vq(*kind)

    def plan(self) -> list[Unit]:
        """Write who is to be encoded to `manifests/plan/encode/`."""
        tables = ((f"{tier}-{shard}", table) for tier in self.recipe.tier for shard, table in self._chosen(tier))
        units = []
        made_by = {tier: self.made_by(tier) for tier in self.recipe.tier}
        for name, path, sha256 in write_plan(self.root, self.name, tables, self._planned_from()):
            tier, _, shard = name.rpartition("-")
            reads = {
                "plan": path.relative_to(self.root).as_posix(),
                "tar": f"pairs/{shard}.tar",
                "tier": tier,
                "made_by": made_by[tier],
            }
            units.append(Unit(name, reads, digest_of([sha256, shard_content(self.root, shard), made_by[tier]])))
        return units

    def _planned_from(self) -> str:
        most = [(tier, section.max_pairs) for tier, section in self.recipe.tier.items()]
        drawn = (
            [self.recipe.pretokenize.seed, tombstones_sha256(self.root)] if any(n is not None for _, n in most) else []
        )
        return digest_of([self.name, PLANNING, most, drawn, upstream(self.root, "decide")])

    def _chosen(self, tier: str) -> Iterator[tuple[str, pa.Table]]:
        """Yield (shard of pairs, uids that are encoded) of a tier."""
        most, among = self.recipe.tier[tier].max_pairs, "true"
        if most is not None:
            removed = read_tombstones(self.root).chosen(tier)
            among = lowest_draws(self.root, tier, removed, self.recipe.pretokenize.seed, most)
        return kept_by_shard(self.root, [tier], among)

    def open(self) -> "EncodeWorker":
        """Load every tier's tokenizer, once each, and measure what the chosen arithmetic does to its codes."""
        from tokenize_shards.agreement import check, measure
        from tokenize_shards.encode import Encoder
        from tokenize_shards.vq import load_vq

        values = self.recipe.pretokenize
        loaded = {kind: load_vq(*kind) for kind in sorted({self.recipe.tokenizer(tier) for tier in self.recipe.tier})}
        encoders = {kind: Encoder(one, values.precision, fused=values.fused) for kind, one in loaded.items()}
        kinds = {tier: self.recipe.tokenizer(tier) for tier in self.recipe.tier}
        agreements, batch_of = {}, {}
        for tier, section in self.recipe.tier.items():
            kind = self.recipe.tokenizer(tier)
            batch_of[tier] = values.batch_size or encoders[kind].largest_batch(section.size)
            agreements[tier] = measure(loaded[kind], encoders[kind], section.size, batch_of[tier])
            check(agreements[tier], values.min_agreement, stand_in=loaded[kind].weights.stand_in)
        made = {
            tier: TierTools(encoders[kind], agreements[tier], batch_of[tier], loaded[kind].report)
            for tier, kind in kinds.items()
        }
        return EncodeWorker(self, made, Decoders(values.decoders))

    def facts(self) -> dict[str, Any]:
        """Return `codes`: tier -> what made them: tokenizer, fingerprint of its tensors, arithmetic and its
        agreement."""
        facts: dict[str, Any] = {}
        for record in records_of(self.root, self.name):
            tier = record.shard.rpartition("-")[0]
            if tier not in facts:
                facts[tier] = {
                    "tokenizer": self.recipe.tokenizer(tier)[0],
                    "crop": crop_plan(self.recipe).label,
                    **_metadata(self.root / record.files[0].path),
                }
        return {"codes": facts}


def _metadata(path: Path) -> dict[str, Any]:
    """Return what a table of codes says of what made them. Raises FormatError for a damaged table or one of something
    else, OSError."""
    metadata = read_schema(path).metadata
    with parsing(path, "does not say what made its codes"):
        return {
            "fingerprint": metadata[FINGERPRINT.encode()].decode(),
            "agreement": json.loads(metadata[AGREEMENT.encode()]),
            "checkpoint": json.loads(metadata[REPORT.encode()]),
        }


@dataclass(frozen=True)
class TierTools:
    """What encodes a tier: its encoder, how its arithmetic agrees with float32, crops per batch, and what its
    checkpoint holds."""

    encoder: "Encoder"
    agreement: "Agreement"
    batch_size: int
    report: dict[str, Any]

    def facts(self) -> dict[str, str]:
        """Return what the metadata of the tier's tables says of its codes."""
        told = {AGREEMENT: asdict(self.agreement), REPORT: {**self.report, "batch_size": self.batch_size}}
        texts = {name: canonical_json(value).decode() for name, value in told.items()}
        return {FINGERPRINT: self.encoder.fingerprint, **texts}


@dataclass(frozen=True)
class EncodeWorker:
    """Encodes a shard's planned pictures in batches of one shape: on a GPU the next one is cut and sent while one is
    encoded."""

    step: Encode
    tools: "dict[str, TierTools]"
    decoders: Decoders

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `codes/encoded/NAME.parquet`."""
        root, tier, made_by = self.step.root, unit.reads["tier"], unit.reads["made_by"]
        recipe, tools = self.step.recipe, self.tools[tier]
        uids = read_table(root / unit.reads["plan"])["uid"].to_pylist()
        work = partial(cut, max_pixels=recipe.fetch.max_pixels, size=recipe.tier[tier].size, plan=crop_plan(recipe))
        size, ahead = tools.batch_size, tools.encoder.ahead
        loop = WorkerLoop(unit.name, in_flight, size, work, self.decoders, ahead, len(uids))
        rows = loop.run(
            unit_pairs(root, unit, uids), earlier_rows(root, "encode", made_by, uids), partial(self._begin, tier)
        )
        drawn = sorted((uid_hash(uid, recipe.pretokenize.seed), uid) for uid in uids)
        made = complete(({"uid": uid, "draw": draw} for draw, uid in drawn), rows)
        path = root / "codes" / "encoded" / f"{unit.name}.parquet"
        table = stamp(pa.Table.from_pylist(made, schema=ENCODED), made_by, **tools.facts())
        write_table(path, table, ROW_GROUP_ROWS)
        return record_of(root, unit, path, made)

    def _begin(self, tier: str, pairs: list[Pair], values: list[Any]) -> Finish:
        """Start encoding the crops of a batch; a value is a pair's crops, or the reason why there are none."""
        size, tools = self.step.recipe.tier[tier].size, self.tools[tier]
        rows, whole = opened_rows(pairs, values, size=size, crop=crop_plan(self.step.recipe).label)
        pixels = [pixels for _, crops in whole for _, pixels in crops]
        codes_MN = tools.encoder.begin_crops(pixels, size, tools.batch_size)

        def finish() -> Rows:
            """Wait for the codes and put them into their rows."""
            for (uid, crops), codes in zip(whole, np.split(codes_MN(), len(whole)) if whole else (), strict=True):
                rows[uid].update(n_crops=len(crops), crops=[note for note, _ in crops], codes=codes.reshape(-1))
            return rows

        return finish


def cut(jpeg: bytes, max_pixels: int, size: int, plan: CropPlan) -> list[Cut] | str:
    """Return a picture's crops as (note, RGB array (size, size, 3) uint8), or the reason why it does not open."""
    try:
        picture = open_picture(jpeg, ImageLimits(max_pixels=max_pixels), stored=True)
    except ImageFault as fault:
        return fault.reason
    return [(crop.note(), np.asarray(pixels)) for crop, pixels in crops_of(picture, size, plan)]


def crop_plan(recipe: Recipe) -> CropPlan:
    """Return which crops of a picture are encoded."""
    values = recipe.pretokenize
    return CropPlan(values.crop, tuple(values.scales), values.flip)


def grid_of(vq: str, size: int) -> int:
    """Return the side of the code grid of a picture of `size` pixels."""
    return size // VQ_SPECS[vq].downsampling
