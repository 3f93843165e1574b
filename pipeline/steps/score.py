"""filter / score: one decode and one pass per encoder turn the pairs into score columns and perceptual hashes."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.scorers.catalog import HEADS, scorer_specs, scorer_weights
from manifests.files import canonical_json, parsing, read_metadata, read_table, write_table
from manifests.journal import FileRecord, ShardRecord, records_of
from manifests.schema import COLUMNS, schema
from manifests.stored_pictures import stored_keys
from manifests.weights import STAND_IN, WeightsFile
from pipeline.execution.decode_pool import Decoders, Pair
from pipeline.execution.in_flight import InFlight
from pipeline.execution.redaction import RemovedRows
from pipeline.execution.reuse import earlier_rows, stamp
from pipeline.execution.step import Step, Unit
from pipeline.recipes.rules import scored_columns
from pipeline.steps.kept_pairs import Row, opened, opened_rows, record_of, unit_pairs
from pipeline.steps.worker_loop import Rows, WorkerLoop, complete

if TYPE_CHECKING:
    from filters.scorers.panel import Panel

EMBEDDING = "embedding"
"""Column of `scores/*.parquet` where the recipe keeps embeddings: CLIP's, of length 1, float16."""
PREPROCESSING = "tessera_preprocessing"
"""Parquet metadata: encoder -> what becomes of a picture before it sees it."""
NO_NUMBER = "tessera_no_number"
"""Parquet metadata: score column -> rows for which its model gave NaN or infinity. They are null, and no rule passes
them."""
RECORDED = "no_number"
"""The same counts in a shard's record (`read`): the stage's manifest asks for them without opening 60,000 tables."""
TEXT_OF = {"clip_similarity": "caption", "clip_similarity_caption": "top_caption", "conse": "caption"}
"""Columns that need a text -> where `pairs/` has it: without it a null is no fault of the model."""
HALVED = ("clip", "watermark_laion")
"""Encoders that `score.precision` is about; the others compute in float32."""


@dataclass(frozen=True)
class Score(Step):
    """Units are the shards of pairs."""

    name: ClassVar[str] = "score"
    version: ClassVar[int] = 3
    carries: ClassVar[bool] = True
    on_card: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        """Return the heads with their options, without where their files lie."""
        values = self.recipe.score  # some encoders' last bits depend on the batch
        settings = {
            "use": list(values.use),
            "batch_size": values.batch_size,
            "options": {s.name: s.identity() for s in self.specs()},
        }
        return {**settings, "precision": values.precision, "embeddings": values.embeddings}

    def specs(self) -> Sequence[Any]:
        """Return the heads of the recipe with their options."""
        return scorer_specs(self.recipe.score.use, self.recipe.score.model_extra or {})

    def weights(self) -> tuple[WeightsFile, ...]:
        """Return the weights of every head and encoder, once each."""
        found = [file for spec in self.specs() for file in scorer_weights(spec)]
        return tuple(dict.fromkeys(found))

    def plan(self) -> list[Unit]:
        """Take every finished shard of pairs."""
        return [
            Unit(
                record.shard,
                {"tar": record.files[0].path, "table": record.files[1].path, "made_by": self.own_key},
                record.content,
            )
            for record in records_of(self.root, "fetch")
        ]

    def open(self) -> "ScoreWorker":
        """Load the models."""
        from filters.scorers.base import Compute
        from filters.scorers.panel import load_panel

        values = self.recipe.score
        panel = load_panel(self.specs(), Compute(values.batch_size, values.precision), embeddings=values.embeddings)
        return ScoreWorker(self, panel, Decoders(values.decoders))

    def facts(self) -> dict[str, Any]:
        """Return `scores`: column -> what its numbers mean and what made them."""
        records = records_of(self.root, self.name)
        first = self.root / records[0].files[0].path if records else None
        preprocessing = _noted(first, read_metadata(first), PREPROCESSING) if first else {}
        no_number: Counter[str] = Counter()
        for record in records:
            no_number.update(self._no_number(record))
        facts: dict[str, Any] = {}
        for spec in self.specs():
            made = self._made_by(spec, preprocessing)
            for column in HEADS[spec.name].columns:
                scale = COLUMNS[column].metadata[b"says"].decode()
                facts[column] = {"scale": scale, **made, "no_number": no_number[column]}
        return {"scores": facts}

    def _no_number(self, record: ShardRecord) -> dict[str, int]:
        """Return the shard's NO_NUMBER as its record holds it; the records of before hold none, and their tables are
        opened."""
        if RECORDED not in record.read:
            path = self.root / record.files[0].path
            return dict(_noted(path, read_metadata(path), NO_NUMBER))
        return dict(record.read[RECORDED])

    def _made_by(self, spec: Any, preprocessing: dict[str, str]) -> dict[str, Any]:
        """Return what made a head's columns; `preprocessing`: encoder -> what becomes of a picture before it sees
        it."""
        head = HEADS[spec.name]
        return {
            "head": spec.name,
            "encoder": {"name": head.encoder, **spec.encoder_options.identity(), **_stand_in(spec)},
            "weights": [file.sha256 for file in scorer_weights(spec)],
            "preprocessing": preprocessing.get(head.encoder, ""),
            "precision": self.recipe.score.precision if head.encoder in HALVED else "fp32",
            "stands_in_for": head.stands_in_for,
        }

    def redact(self, record: ShardRecord, removed: RemovedRows) -> ShardRecord:
        """Take the rows that go out of the scores, and out of the counts of what is no number in their metadata."""
        redacted = super().redact(record, removed)
        if redacted is record:
            return record
        path = self.root / redacted.files[0].path
        table = read_table(path)
        metadata: dict[Any, Any] = dict(table.schema.metadata)
        if not _noted(path, metadata, NO_NUMBER):
            return redacted
        given = {row["key"]: row for row in read_table(self.root / "pairs" / f"{record.shard}.parquet").to_pylist()}
        counts = ScoreWorker.no_numbers(self, table.to_pylist(), given)
        write_table(path, table.replace_schema_metadata({**metadata, NO_NUMBER.encode(): canonical_json(counts)}))
        return replace(redacted, files=(FileRecord.of(self.root, path),), read={**redacted.read, RECORDED: counts})


@dataclass(frozen=True)
class ScoreWorker:
    """Decodes and scores a shard in batches: one batch of pictures in memory, with decoders two."""

    step: Score
    panel: "Panel"
    decoders: Decoders

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `scores/NAME.parquet`."""
        root, values, made_by = self.step.root, self.step.recipe, unit.reads["made_by"]
        given = {row["key"]: row for row in read_table(root / unit.reads["table"]).to_pylist()}
        uids = [bytes.fromhex(key) for key in stored_keys(root / unit.reads["tar"])]
        work = partial(opened, max_pixels=values.fetch.max_pixels)
        loop = WorkerLoop(unit.name, in_flight, values.score.batch_size, work, self.decoders, planned=len(uids))
        rows = loop.run(
            unit_pairs(root, unit, uids),
            earlier_rows(root, "score", made_by, uids),
            lambda pairs, pictures: partial(self._score, pairs, pictures, given),
        )
        made = complete(({"uid": uid} for uid in uids), rows)
        path = root / "scores" / f"{unit.name}.parquet"
        no_number = self.no_numbers(self.step, made, given)
        told = {PREPROCESSING: self.panel.preprocessing, NO_NUMBER: no_number}
        facts = {name: canonical_json(value).decode() for name, value in told.items()}
        write_table(path, stamp(self._table(made), made_by, **facts))
        return replace(record_of(root, unit, path, made), read={RECORDED: no_number})

    @staticmethod
    def no_numbers(step: Score, rows: list[Row], given: dict[str, Row]) -> dict[str, int]:
        """Return score column -> rows whose picture opened and whose model gave no finite number; columns without any
        stay out."""
        counts: Counter[str] = Counter()
        for row in rows:
            fact = given[row["uid"].hex()]
            for name in step.recipe.score.use if row.get("reason") is None else ():
                if fact.get(HEADS[name].stands_in_for or "") is None:
                    counts.update(
                        c
                        for c in HEADS[name].columns
                        if row.get(c) is None and fact.get(TEXT_OF.get(c, "key")) is not None
                    )
        return dict(counts)

    def _score(self, pairs: list[Pair], values: list[Any], given: dict[str, Row]) -> Rows:
        """Return the rows of a batch: pHash, score columns and embedding of the pictures that opened."""
        from PIL import Image

        from filters.dedup import phash

        rows, pictures = opened_rows(pairs, values)
        if not pictures:
            return rows
        images = [Image.fromarray(pixels) for _, pixels in pictures]
        facts = [given[uid.hex()] for uid, _ in pictures]
        needs = {
            name: np.array([fact.get(HEADS[name].stands_in_for or "") is None for fact in facts])
            for name in self.step.recipe.score.use
        }
        texts = {"text": [fact["caption"] for fact in facts], "caption": [fact.get("top_caption") for fact in facts]}
        scored = self.panel.score(images, texts, needs)
        for position, ((uid, _), value) in enumerate(zip(pictures, phash(images), strict=True)):
            rows[uid]["phash"] = int(value)
            rows[uid].update({name: _number(column[position]) for name, column in scored.columns.items()})
            if scored.embeddings is not None:
                rows[uid]["embedding"] = scored.embeddings[position]
        return rows

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        wanted = schema("uid", "sha256", "phash", *scored_columns(self.step.recipe), "reason")
        table = pa.Table.from_pylist(rows, schema=wanted)
        if self.step.recipe.score.embeddings:
            table = table.append_column(
                EMBEDDING, _embeddings([row.get("embedding") for row in rows], self.panel.width)
            )
        return table


def _noted(path: Path, metadata: Mapping[bytes, bytes], name: str) -> dict[str, Any]:
    """Return what a table of scores says under a name of its metadata, {} for nothing. Raises FormatError for no JSON
    object."""
    with parsing(path, f"its {name} is no JSON object"):
        return dict(json.loads(metadata.get(name.encode(), b"{}")))


def _number(value: Any) -> float | None:
    """Return a score, or null for what is no number: a rule that needs it then says `missing_value`."""
    return float(value) if np.isfinite(value) else None


def _embeddings(rows: list[Any], width: int) -> pa.Array:
    """Return embeddings as a column of fixed-size lists of float16; zeros where a picture did not open.

    Not null: Arrow writes null lists of a fixed size to Parquet, but cannot read them back.
    """
    flat = np.zeros((len(rows), width), np.float16)
    for position, row in enumerate(rows):
        if row is not None:
            flat[position] = row
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1), pa.float16()), width)


def _stand_in(spec: Any) -> dict[str, str]:
    """Say so where an encoder's weights are stand-ins: then the recipe's name of a model means nothing."""
    return {"model": STAND_IN} if getattr(spec.encoder_options, "weights", "") == STAND_IN else {}
