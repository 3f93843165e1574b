"""caption: describe the kept pictures of the tiers that ask for it, as sidecars beside the pairs."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from captioning.base import build_captioner, captioner_settings, captioner_weights
from manifests.files import digest_of, read_table, write_table
from manifests.journal import ShardRecord, kept_by_kind, records_of, upstream
from manifests.plans import write_plan
from manifests.tables import CAPTIONED
from manifests.weights import WeightsFile
from pipeline.execution.decode_pool import Pair
from pipeline.execution.in_flight import InFlight
from pipeline.execution.reuse import earlier_rows, stamp
from pipeline.execution.step import Step, Unit
from pipeline.steps.kept_pairs import kept_by_shard, opened, opened_rows, record_of, shard_content, unit_pairs
from pipeline.steps.worker_loop import Rows, WorkerLoop, complete

if TYPE_CHECKING:
    from captioning.captioner import Captioner

PLANNING = 1
"""Raised when the same rows are planned in another way."""


@dataclass(frozen=True)
class CaptionStep(Step):
    """Units are (captioner, shard of pairs)."""

    name: ClassVar[str] = "caption"
    version: ClassVar[int] = 1
    carries: ClassVar[bool] = True
    on_card: ClassVar[bool] = True
    counts_rows: ClassVar[bool] = True

    def captioners(self) -> dict[str, list[str]]:
        """Return captioner -> the tiers that ask for it."""
        asked: dict[str, list[str]] = {}
        for tier, section in self.recipe.tier.items():
            if section.caption:
                asked.setdefault(section.caption, []).append(tier)
        return asked

    def _settings_of(self, captioner: str) -> dict[str, Any]:
        return captioner_settings(captioner, self.recipe.caption.options(captioner), self.recipe.caption.batch_size)

    def made_by(self, captioner: str) -> str:
        """Return the digest of what a captioner's words depend on beside the picture."""
        weights = captioner_weights(captioner, self.recipe.caption.options(captioner))
        return digest_of([self.version, self._settings_of(captioner), [file.record() for file in weights]])

    def settings(self) -> dict[str, Any]:
        """Return who captions which tiers, and each captioner's settings."""
        return {name: {"tiers": tiers, **self._settings_of(name)} for name, tiers in self.captioners().items()}

    def weights(self) -> tuple[WeightsFile, ...]:
        """Return the weights of every captioner in use."""
        return tuple(
            file for name in self.captioners() for file in captioner_weights(name, self.recipe.caption.options(name))
        )

    def plan(self) -> list[Unit]:
        """Write who is to be captioned to `manifests/plan/caption/`."""
        tables = (
            (f"{name}-{shard}", table)
            for name, tiers in self.captioners().items()
            for shard, table in kept_by_shard(self.root, tiers)
        )
        planned_from = digest_of([self.name, PLANNING, list(self.captioners().items()), upstream(self.root, "decide")])
        units = []
        for name, path, sha256 in write_plan(self.root, self.name, tables, planned_from):
            captioner, _, shard = name.rpartition("-")
            reads = {
                "plan": path.relative_to(self.root).as_posix(),
                "tar": f"pairs/{shard}.tar",
                "captioner": captioner,
                "made_by": self.made_by(captioner),
            }
            units.append(Unit(name, reads, digest_of([sha256, shard_content(self.root, shard)])))
        return units

    def open(self) -> "CaptionWorker":
        """Load every captioner in use."""
        size = self.recipe.caption.batch_size
        built = {name: build_captioner(name, self.recipe.caption.options(name), size) for name in self.captioners()}
        return CaptionWorker(self, built)

    def facts(self) -> dict[str, Any]:
        """Return `captioners`: captioner -> pictures that it has described."""
        return {"captioners": kept_by_kind(records_of(self.root, self.name))}


@dataclass(frozen=True)
class CaptionWorker:
    """Captions a shard's planned pictures in batches."""

    step: CaptionStep
    captioners: "dict[str, Captioner]"

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `captions/NAME.parquet`."""
        root, name, made_by = self.step.root, unit.reads["captioner"], unit.reads["made_by"]
        uids = read_table(root / unit.reads["plan"])["uid"].to_pylist()
        work = partial(opened, max_pixels=self.step.recipe.fetch.max_pixels)
        loop = WorkerLoop(unit.name, in_flight, self.step.recipe.caption.batch_size, work)
        rows = loop.run(
            unit_pairs(root, unit, uids),
            earlier_rows(root, "caption", made_by, uids),
            lambda pairs, pictures: partial(_captioned, self.captioners[name], pairs, pictures),
        )
        made = complete(({"uid": uid, "captioner": name} for uid in uids), rows)
        path = root / "captions" / f"{unit.name}.parquet"
        write_table(path, stamp(pa.Table.from_pylist(made, schema=CAPTIONED), made_by))
        return record_of(root, unit, path, made)


def _captioned(captioner: "Captioner", pairs: list[Pair], values: list[Any]) -> Rows:
    """Return the rows of a batch: the captioner's words on the pictures that opened."""
    from PIL import Image

    rows, pictures = opened_rows(pairs, values)
    captions = captioner.caption([Image.fromarray(pixels) for _, pixels in pictures]) if pictures else []
    for (uid, _), caption in zip(pictures, captions, strict=True):
        rows[uid].update(caption=caption.text, short_caption=caption.short, flags=list(caption.flags))
        rows[uid].update(model=captioner.model, revision=captioner.revision, prompt=captioner.prompt)
    return rows
