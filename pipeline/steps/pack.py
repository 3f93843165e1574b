"""pretokenize / pack: codes, captions and provenance into WebDataset shards, in an order drawn from hash(uid, seed)."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import canonical_json, open_table, parsing, read_schema, read_table
from manifests.journal import FileRecord, ShardRecord, kept_by_kind, records_of
from manifests.lineage import origin
from manifests.manifest import Manifest
from manifests.shards import index_path, write_shard
from manifests.uid import uid_hash
from pipeline.execution.in_flight import InFlight
from pipeline.execution.shuffle import sweep_scratch
from pipeline.execution.step import Do, Step, Unit
from pipeline.recipes.captions import caption_setting, untrained_captions
from pipeline.steps.encode import FINGERPRINT, Encode, grid_of
from pipeline.steps.kept_pairs import Row
from pipeline.steps.moved import MovedCodes, MovedRows, bring
from pipeline.steps.pack_order import PackOrder
from pipeline.steps.sharding import read_range
from pipeline.steps.stored_features import StoredFeatures
from tokenize_shards.catalog import VQ_SPECS
from tokenize_shards.samples import Tokenizer, sample_parts

NUMBERS = {"fp16": "<f2", "bf16": "<u2"}
FEATURE_COLUMNS = ["uid", "tokens", "features", "dtype"]
"""What is read of stored features; tables of before have no `dtype`."""
FEATURE_ROWS = 64
"""Rows of stored features that are held at a time."""


@dataclass(frozen=True)
class Pack(Step):
    """Units are (tier, `pretokenize.shard_rows` samples in the packed order)."""

    name: ClassVar[str] = "pack"
    version: ClassVar[int] = 3
    needs: ClassVar[tuple[type[Step], ...]] = (PackOrder,)

    @property
    def order(self) -> PackOrder:
        """Return what puts the samples in order."""
        return PackOrder(self.recipe, self.root, self.runtime)

    @property
    def t5(self) -> StoredFeatures:
        """Return which features are packed, where there are any."""
        return StoredFeatures(self.recipe)

    @property
    def encode(self) -> Encode:
        """Return the step whose codes are packed."""
        return Encode(self.recipe, self.root, self.runtime)

    def settings(self) -> dict[str, Any]:
        """Return order and size of the shards, and which captions may be in them."""
        values = self.recipe.pretokenize
        return {
            "shard_rows": values.shard_rows,
            "shard_bytes": values.shard_bytes,
            "seed": values.seed,
            "captions": {name: caption_setting(tier) for name, tier in self.recipe.tier.items()},
        }

    @property
    def parent(self) -> str:
        """Return the digest of the filter's manifest: where the samples come from, before any were removed since."""
        return origin(self.root, "filter", Manifest.read(self.root / "manifests" / "filter.json").digest)

    def plan(self) -> list[Unit]:
        """Write the packed order to `manifests/plan/pack/`."""
        features = {record.shard: canonical_json(record.content) for record in records_of(self.root, "t5")}
        contents = {record.shard: canonical_json(record.content) for record in records_of(self.root, "encode")}
        units, parent = [], self.parent
        for name, path, sha256 in self.order.packed():
            tier, _, number = name.rpartition("-")
            encoded = sources(read_table(path, ["encoded"]))
            reads = {"plan": path.relative_to(self.root).as_posix(), "tier": tier, "number": number}
            # digest_of([sha256, [[content, features], …], parent]), of which the middle may be of 20,000 tables
            end = b"," + features.get(name, b"null") + b"]"
            read = b"[" + b",".join(b"[" + contents[shard] + end for shard in encoded) + b"]"
            whole = b"[" + b",".join([canonical_json(sha256), read, canonical_json(parent)]) + b"]"
            units.append(Unit(name, reads, hashlib.sha256(whole).hexdigest()))
        return units

    def tiers(self) -> dict[str, int]:
        """Return tier -> samples that are packed."""
        return kept_by_kind(records_of(self.root, self.name))

    def packed_bytes(self, uids: Collection[bytes]) -> dict[bytes, dict[str, int]]:
        """Return uid -> tier -> bytes that a sample counts in the cutting of the tier's shards; those that are not
        packed stay out."""
        sizes: dict[bytes, dict[str, int]] = {}
        for tier in self.recipe.tier if records_of(self.root, self.name) else ():
            for uid, size in self.order.sizes(tier, uids).items():
                sizes.setdefault(uid, {})[tier] = size
        return sizes

    def bring(self, pending: Sequence[Unit], do: Do, grouped: bool = False) -> None:
        """Move encoded rows to the shards that are to be packed."""
        bring(MovedCodes(self.recipe, self.root, self.runtime), pending, do, grouped)

    def settle(self, steps: Sequence[Step]) -> list[str]:
        """Drop what was moved: it is packed."""
        sweep_scratch(self.root, MovedCodes.into)
        return []

    def notes(self) -> list[str]:
        """Warn of captions that no training draws."""
        return untrained_captions(self.recipe)

    def open(self) -> "PackWorker":
        """Return a worker; nothing to load."""
        return PackWorker(self, self.parent)

    def tokenizer(self, tier: str, encoded: Path) -> Tokenizer:
        """Return what made a tier's codes; the fingerprint of the tensors stands in the encoded file."""
        name, _ = self.recipe.tokenizer(tier)
        with parsing(encoded, "does not say what made its codes"):
            fingerprint = read_schema(encoded).metadata[FINGERPRINT.encode()].decode()
        stand_in = self.encode.tokenizer(tier).stand_in
        return Tokenizer(
            name, fingerprint, VQ_SPECS[name].codebook_size, grid_of(name, self.recipe.tier[tier].size), stand_in
        )


@dataclass(frozen=True)
class PackWorker:
    """Writes one shard of code samples and its index."""

    step: Pack
    parent: str

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `codes/TIER/NUMBER.tar` and `.index.json`."""
        root, tier = self.step.root, unit.reads["tier"]
        path = root / "codes" / tier / f"{unit.reads['number']}.tar"
        with in_flight.working_on(unit.name, ()):
            order = read_table(root / unit.reads["plan"])
            encoded = [root / "codes" / "encoded" / f"{name}.parquet" for name in sources(order)]
            rows = self._rows(unit, encoded, order["uid"]) if encoded else []
            parts = {row["uid"]: row for row in rows}
            tokenizer = self._tokenizer(tier, encoded[0]) if encoded else None  # of a shard whose rows are all removed
            features = self._features(unit) if self.step.t5.wanted else iter(())
            samples = (
                (row["uid"].hex(), sample_parts({**row, **parts[row["uid"]]}, tier, tokenizer, self.parent))
                for row in self._with_features(order.to_pylist(), features)
                if tokenizer
            )
            count = write_shard(path, samples, index=True)
        files = (FileRecord.of(root, path), FileRecord.of(root, index_path(path)))
        return ShardRecord(unit.name, unit.key, files, order.num_rows, count)

    @cached_property
    def moved(self) -> MovedRows:
        """Return what was moved to its shards."""
        return MovedRows.of(self.step.root)

    @cached_property
    def _tokenizers(self) -> dict[tuple[str, Path], Tokenizer]:
        return {}

    def _tokenizer(self, tier: str, encoded: Path) -> Tokenizer:
        """Return what made a tier's codes, as this table says, which is looked into once."""
        found = self._tokenizers.get((tier, encoded)) or self.step.tokenizer(tier, encoded)
        return self._tokenizers.setdefault((tier, encoded), found)

    def _rows(self, unit: Unit, paths: list[Path], uids: pa.ChunkedArray) -> list[Row]:
        """Return the encoded rows of this shard: what was moved to it, else what these tables hold of it."""
        moved = self.moved.of_unit(unit)
        tables = [self._rows_of(path, uids) for path in paths] if moved is None else [moved]
        return [row for table in tables for row in table.to_pylist()]

    def _rows_of(self, path: Path, uids: pa.ChunkedArray) -> pa.Table:
        """Return a table's rows of this shard, whose order is that of their draws: of the file only the row groups that
        can hold them."""
        wanted, seed = uids.combine_chunks(), self.step.recipe.pretokenize.seed
        table = read_range(path, "draw", uid_hash(wanted[0].as_py(), seed), uid_hash(wanted[-1].as_py(), seed))
        return table.filter(pc.is_in(table["uid"], wanted))

    def _features(self, unit: Unit) -> Iterator[Row]:
        """Yield the rows of this shard's own table of stored features, which stand in the packed order."""
        with open_table(self.step.root / "codes" / "t5" / f"{unit.name}.parquet") as file:
            columns = [name for name in FEATURE_COLUMNS if name in file.schema_arrow.names]
            for batch in file.iter_batches(FEATURE_ROWS, columns=columns):
                yield from batch.to_pylist()

    def _with_features(self, planned: Sequence[Row], features: Iterator[Row]) -> Iterator[Row]:
        """Yield the planned rows, with `t5` where a pair has its caption: numbers of 16 bits (tokens, width), and what
        made them."""
        values, passed = self.step.recipe.pretokenize, dict[bytes, Row]()
        weights = "".join(file.sha256 for file in self.step.t5.weights())
        for row in planned:
            while row["uid"] not in passed and (found := next(features, None)) is not None:
                passed[found["uid"]] = found  # the next one, unless a row of the plan has none
            made = passed.pop(row["uid"], {})
            if made.get("features") is None:
                yield row
                continue
            dtype = made.get("dtype") or values.t5_dtype
            numbers = np.frombuffer(made["features"], NUMBERS[dtype]).reshape(made["tokens"], -1)
            note = {"source": values.t5_caption, "dtype": dtype, "weights": weights, "tokens": made["tokens"]}
            yield {**row, "t5": {"numbers": numbers, "note": note}}


def sources(order: pa.Table) -> list[str]:
    """Return the encoded shards that a packed one takes samples from: nearly all of a tier, where there are many
    pictures."""
    return sorted(name for name in order["encoded"].unique().to_pylist() if name)
