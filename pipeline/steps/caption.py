"""caption: describe the kept pictures of the tiers that ask for it; what captioners answer, before it is judged."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from captioning.base import build_captioner, captioner_settings, captioner_weights
from captioning.captioner import Answer, Ask
from captioning.prompts import Prompt, fill, prompt_named
from manifests.files import FormatError, digest_of, parsing, read_table, write_table
from manifests.journal import ShardRecord, upstream
from manifests.plans import write_plan
from manifests.recipe_file import read_headed
from manifests.schema import schema
from manifests.tables import ATTEMPTED
from manifests.weights import WeightsError, WeightsFile
from pipeline.execution.decode_pool import Decoders
from pipeline.execution.in_flight import InFlight
from pipeline.execution.loaded import let_go_memory
from pipeline.execution.partial import Partial
from pipeline.execution.reuse import earlier_rows, stamp
from pipeline.execution.step import Step, Unit
from pipeline.recipes.captions import captioners, prompts_of
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.user_captioners import captioner_options
from pipeline.steps.asking import Asking, Questions
from pipeline.steps.captioner_notes import note, take_noted, told
from pipeline.steps.kept_pairs import Row, kept_by_shard, record_of, shard_content, unit_pairs
from pipeline.steps.worker_loop import complete

if TYPE_CHECKING:
    from captioning.captioner import Captioner

PLANNING = 2
"""Raised when the same rows are planned in another way."""
ASKED = pa.schema(
    [
        *schema("uid"),
        pa.field("prompt", pa.string(), metadata={"says": "name of the prompt"}),
        pa.field("seed", pa.int64()),
        pa.field("alt", pa.string(), metadata={"says": "null where the prompt has no such field"}),
        pa.field("top_caption", pa.string(), metadata={"says": "null where the prompt has no such field"}),
    ]
)
"""`manifests/plan/caption/*.parquet`: what is asked of which picture."""
KEPT_TOGETHER = 8
"""Answers are kept as soon as an eighth of a batch is there, so that a kill costs what is in hand and little more; so
many where the recipe names no batch."""


@dataclass(frozen=True)
class CaptionStep(Step):
    """Units are (captioner, shard of pairs): each picture is asked about once."""

    name: ClassVar[str] = "caption"
    version: ClassVar[int] = 2
    carries: ClassVar[bool] = True
    made_from: ClassVar[str] = "made_from"
    on_card: ClassVar[bool] = True
    noun: ClassVar[str] = "captions"
    folder: ClassVar[str] = "attempts"

    def captioners(self) -> dict[str, list[str]]:
        """Return captioner -> the tiers that ask for it."""
        return captioners(self.recipe)

    def options(self, captioner: str) -> dict[str, Any]:
        """Return the recipe's options of a captioner."""
        return captioner_options(self.recipe, captioner)

    def prompt(self, captioner: str) -> Prompt:
        """Return what a captioner is asked first."""
        return self.named(self.options(captioner).get("prompt", "describe_v1"))

    def named(self, name: str) -> Prompt:
        """Return a prompt of the recipe or a bundled one."""
        return prompt_named(name, prompts_of(self.recipe))

    def made_by(self, captioner: str) -> str:
        """Return the digest of what a captioner's words depend on beside the picture, the question and the seed."""
        settings = captioner_settings(captioner, self.options(captioner))
        return digest_of(["captions", self.version, settings, self._weights_noted(captioner)])

    def weights_of(self, captioner: str) -> tuple[WeightsFile, ...]:
        """Return the identity of a captioner's weights: of files that are gone since, as the run noted it, for nothing
        may be left to ask. Raises WeightsError."""
        try:
            return captioner_weights(captioner, self.options(captioner))
        except WeightsError:
            noted = self._noted(captioner)
            if noted is None:
                raise
            return noted

    def _noted(self, captioner: str) -> tuple[WeightsFile, ...] | None:
        """Return which weights this step was last done with, where the run's recipe named the same captioner."""
        try:
            with parsing(self.root / "recipe.toml", "names no weights of this step"):
                before = parse_recipe(read_headed(self.root / "recipe.toml"))
                if before.caption.options(captioner) == self.recipe.caption.options(captioner):
                    noted = (self.journal.note() or {})["settings"][captioner]["weights"]
                    return tuple(WeightsFile(**file) for file in noted)
        except (OSError, FormatError):
            pass
        return None

    def _weights_noted(self, captioner: str) -> list[dict[str, str | bool]]:
        return [file.record() for file in self.weights_of(captioner)]

    def settings(self) -> dict[str, Any]:
        """Return who captions which tiers, what each is asked, and what its words depend on."""
        return {
            name: {
                "tiers": tiers,
                "prompt": [self.prompt(name).name, self.prompt(name).text, self.prompt(name).without],
                **captioner_settings(name, self.options(name)),
                "weights": self._weights_noted(name),
            }
            for name, tiers in self.captioners().items()
        }

    def weights(self) -> tuple[WeightsFile, ...]:
        """Return the weights of every captioner in use."""
        return tuple(file for name in self.captioners() for file in self.weights_of(name))

    def plan(self) -> list[Unit]:
        """Write what is asked of whom to `manifests/plan/caption/`."""
        tables = (
            (f"{name}-{shard}", table)
            for name, tiers in self.captioners().items()
            for shard, table in self._asked(name, tiers)
        )
        return self.units_of(write_plan(self.root, self.name, tables, self._planned_from()))

    def turn(self, unit: Unit) -> str:
        """Return the unit's captioner: a worker keeps one loaded for as long as it has shards to describe."""
        return str(unit.reads["captioner"])

    def units_of(self, planned: Any) -> list[Unit]:
        """Return a unit for each planned table."""
        made_by, units = {name: self.made_by(name) for name in self.captioners()}, []
        for name, path, sha256 in planned:
            captioner, _, shard = name.rpartition("-")
            reads = {
                "plan": path.relative_to(self.root).as_posix(),
                "tar": f"pairs/{shard}.tar",
                "captioner": captioner,
                "made_by": made_by[captioner],
            }
            units.append(Unit(name, reads, digest_of([sha256, shard_content(self.root, shard), made_by[captioner]])))
        return units

    def _planned_from(self) -> str:
        asked = [[name, tiers, self.prompt(name).text] for name, tiers in self.captioners().items()]
        return digest_of([self.name, PLANNING, asked, upstream(self.root, "decide")])

    def _asked(self, captioner: str, tiers: list[str]) -> Iterator[tuple[str, pa.Table]]:
        """Yield (shard of pairs, what is asked of its pictures)."""
        prompt = self.prompt(captioner)
        for shard, uids in kept_by_shard(self.root, tiers):
            yield shard, asked(uids, prompt, 0, texts_of_shard(self.root, shard) if prompt.fields else None)

    def settle(self, steps: Sequence[Step]) -> list[str]:
        """Say how many pictures each captioner took at a time, and what it fell back on."""
        return [line for name in self.captioners() for line in told(self.root, name)] if self.name == "caption" else []

    def open(self) -> "CaptionWorker":
        """Load every captioner in use, so that each is found fit before any work."""
        captioners = OneAtATime(self)
        for name in sorted(self.captioners(), reverse=True):  # the first in the order of `turn` stays
            _ = captioners[name]
        return CaptionWorker(self, captioners)


def texts_of_shard(root: Path, shard: str) -> pa.Table:
    """Return (uid, text, top_caption) of a shard of pairs, in the fetch's planned order."""
    return read_table(root / "manifests" / "plan" / "fetch" / f"{shard}.parquet", ["uid", "text", "top_caption"])


def asked(uids: pa.Table, prompt: Prompt, seed: int, texts: pa.Table | None) -> pa.Table:
    """Return the plan for pictures (`uid`) in their order; `texts` where the prompt has fields."""
    alt = top = pa.nulls(uids.num_rows, pa.string())
    if texts is not None:
        place = pc.index_in(uids["uid"], value_set=texts["uid"].combine_chunks())
        alt = texts["text"].take(place) if "alt" in prompt.fields else alt
        top = texts["top_caption"].take(place) if "top_caption" in prompt.fields else top
    columns = [
        uids["uid"],
        pa.array([prompt.name] * uids.num_rows, pa.string()),
        pa.array([seed] * uids.num_rows, pa.int64()),
        alt,
        top,
    ]
    return pa.Table.from_arrays(columns, names=ASKED.names).cast(ASKED)


class OneAtATime(dict[str, "Captioner"]):
    """Captioners by name, each loaded when it is asked for; the one before goes first, since memory may hold one."""

    def __init__(self, step: CaptionStep) -> None:
        super().__init__()
        self.step, self.decoders = step, Decoders(step.recipe.caption.decoders)

    def __missing__(self, name: str) -> "Captioner":
        self.clear()
        let_go_memory()
        section = self.step.recipe.caption
        self[name] = build_captioner(name, self.step.options(name), section.batch_size, self.decoders)
        take_noted(self.step.root, self[name])
        note(self.step.root, self[name])
        return self[name]


class WhenAsked:
    """A captioner that is loaded with the first question: where all answers are carried over no model is."""

    def __init__(self, captioners: "Mapping[str, Captioner]", name: str) -> None:
        self.captioners, self.name = captioners, name
        self.loaded: Captioner | None = None

    def answers(self, asks: Iterable[Ask]) -> Iterator[Answer]:
        """Yield the captioner's answers."""
        rest = iter(asks)
        for first in rest:
            self.loaded = self.loaded or self.captioners[self.name]
            yield from self.loaded.answers(chain([first], rest))

    def __getattr__(self, name: str) -> Any:
        """Return what the loaded captioner says of itself."""
        return getattr(self.captioners[self.name], name)


@dataclass(frozen=True)
class CaptionWorker:
    """Asks about planned pictures, over the ends of shards."""

    step: CaptionStep
    captioners: "Mapping[str, Captioner]"

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `captions/attempts/NAME.parquet`."""
        return next(self.stream(iter([unit]), in_flight))

    def stream(self, units: Iterator[Unit], in_flight: InFlight) -> Iterator[ShardRecord]:
        """Write the same of each unit, those of a captioner that come together as one stream."""
        for name, some in groupby(units, lambda unit: str(unit.reads["captioner"])):
            options = self.step.options(name)
            batch = options.get("batch_size") or options.get("concurrency") or self.step.recipe.caption.batch_size
            together = -(-batch // 8) if batch else KEPT_TOGETHER
            captioner = WhenAsked(self.captioners, name)
            asking = Asking(cast("Captioner", captioner), in_flight, together, self._opened, self._written)
            yield from asking.stream(some)
            if captioner.loaded is not None:
                note(self.step.root, captioner.loaded)

    def _opened(self, unit: Unit) -> Questions:
        root, step, made_by = self.step.root, self.step, unit.reads["made_by"]
        planned = {row["uid"]: self._question(row) for row in read_table(root / unit.reads["plan"]).to_pylist()}
        earlier = earlier_rows(root, step.name, made_by, planned, step.made_from)
        kept = Partial(root, step.name, unit.name, made_by)
        earlier.update({(row["uid"], row["made_from"]): row for row in kept.rows(planned)})
        return Questions(unit, planned, unit_pairs(root, unit, planned), earlier, kept)

    def _written(self, asked: Questions) -> ShardRecord:
        root, unit = self.step.root, asked.unit
        noted = ("uid", "prompt", "prompt_sha256", "seed")
        planned = (
            {"captioner": unit.reads["captioner"], **{name: row[name] for name in noted}}
            for row in asked.planned.values()
        )
        made = complete(planned, asked.rows)
        path = root / "captions" / self.step.folder / f"{unit.name}.parquet"
        write_table(path, stamp(pa.Table.from_pylist(made, schema=ATTEMPTED), unit.reads["made_by"]))
        return record_of(root, unit, path, made)

    def _question(self, row: Row) -> Row:
        """Return a planned row with its filled prompt and the sha256 of that."""
        filled = fill(self.step.named(row["prompt"]), row["alt"], row["top_caption"])
        return {**row, "filled": filled, "prompt_sha256": hashlib.sha256(filled.encode()).digest()}
