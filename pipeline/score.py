"""filter / score: one decode and one pass per encoder turn the pairs into score columns and perceptual hashes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.scorers.catalog import HEADS, scorer_specs, scorer_weights
from manifests.files import read_table, write_table
from manifests.manifest import ShardRecord
from manifests.schema import schema
from manifests.shards import read_shard
from manifests.weights import WeightsFile
from pipeline.hands import Hands, batches
from pipeline.kept import decode, fresh, record_of
from pipeline.reuse import earlier_rows, stamp
from pipeline.rules import scored_columns
from pipeline.steps import Step, Unit, records_of

if TYPE_CHECKING:
    from filters.scorers.panel import Panel


@dataclass(frozen=True)
class Score(Step):
    """Units are the shards of pairs."""

    name: ClassVar[str] = "score"
    version: ClassVar[int] = 1
    carries: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        """Return the heads with their options, without where their files lie."""
        batch_size = self.recipe.score.batch_size  # some encoders' last bits depend on it
        return {"use": list(self.recipe.score.use), "batch_size": batch_size, "options": {s.name: s.identity() for s in self.specs()}}

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
            Unit(record.shard, {"tar": record.files[0].path, "table": record.files[1].path, "made_by": self.own_key}, record.content)
            for record in records_of(self.root, "fetch")
        ]

    def open(self) -> "ScoreWorker":
        """Load the models."""
        from filters.scorers.panel import load_panel

        return ScoreWorker(self, load_panel(self.specs(), self.recipe.score.batch_size))


@dataclass(frozen=True)
class ScoreWorker:
    """Decodes and scores a shard in batches, one batch of pictures in memory."""

    step: Score
    panel: "Panel"

    def run(self, unit: Unit, hands: Hands) -> ShardRecord:
        """Write `scores/NAME.parquet`."""
        root = self.step.root
        given = {row["key"]: row for row in read_table(root / unit.reads["table"]).to_pylist()}
        keys: list[bytes] = []
        rows: dict[bytes, dict[str, Any]] = {}
        made_by = unit.reads["made_by"]
        earlier = earlier_rows(root, "score", made_by, [bytes.fromhex(key) for key in given])
        jpegs = fresh(_jpegs(root / unit.reads["tar"], keys), earlier, rows)
        for batch in batches(jpegs, self.step.recipe.score.batch_size, hands):
            with hands.holding(unit.name, [uid for uid, _ in batch]):
                self._score([(uid, jpeg) for uid, jpeg in batch if not hands.deadly(uid)], given, rows)
        made = [rows.get(key, {"uid": key, "reason": "worker_died"}) for key in keys]
        path = root / "scores" / f"{unit.name}.parquet"
        write_table(path, stamp(self._table(made), made_by))
        return record_of(root, unit, path, made)

    def _score(self, pairs: list[tuple[bytes, bytes]], given: dict[str, dict[str, Any]], rows: dict[bytes, dict[str, Any]]) -> None:
        from filters.dedup import phash

        opened = decode(pairs, rows, self.step.recipe.fetch.max_pixels)
        if not opened:
            return
        scored, images = [uid for uid, _ in opened], [image for _, image in opened]
        facts = [given[uid.hex()] for uid in scored]
        needs = {
            name: np.array([fact.get(HEADS[name].stands_in_for or "") is None for fact in facts]) for name in self.step.recipe.score.use
        }
        columns = self.panel.score(images, [fact["caption"] for fact in facts], needs)
        for position, (uid, value) in enumerate(zip(scored, phash(images), strict=True)):
            rows[uid]["phash"] = int(value)
            rows[uid].update({name: _number(values[position]) for name, values in columns.items()})

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        return pa.Table.from_pylist(rows, schema=schema("uid", "sha256", "phash", *scored_columns(self.step.recipe), "reason"))


def _jpegs(path: Path, keys: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (uid, JPEG) of a shard of pairs, noting the order of the keys."""
    for key, sample in read_shard(path):
        keys.append(bytes.fromhex(key))
        yield keys[-1], sample["jpg"]


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
