"""caption: describe the kept pictures of the tiers that ask for it; what captioners answer, before it is judged."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from captioning.base import build_captioner, captioner_settings, captioner_weights
from captioning.captioner import Ask
from captioning.prompts import Prompt, fill, prompt_named
from manifests.files import digest_of, read_table, write_table
from manifests.journal import ShardRecord, kept_by_kind, records_of, upstream
from manifests.plans import write_plan
from manifests.schema import schema
from manifests.tables import ATTEMPTED
from manifests.weights import WeightsFile
from pipeline.execution.decode_pool import Pair
from pipeline.execution.in_flight import InFlight
from pipeline.execution.reuse import earlier_rows, stamp
from pipeline.execution.step import Step, Unit
from pipeline.recipes.captions import captioners, prompts_of
from pipeline.steps.kept_pairs import Row, kept_by_shard, record_of, shard_content, unit_pairs
from pipeline.steps.worker_loop import Rows, WorkerLoop, complete

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
WITHOUT_NUMBER = 8
"""Pictures of a batch where the recipe names none."""


@dataclass(frozen=True)
class CaptionStep(Step):
    """Units are (captioner, shard of pairs): each picture is asked about once."""

    name: ClassVar[str] = "caption"
    version: ClassVar[int] = 2
    carries: ClassVar[bool] = True
    made_from: ClassVar[str] = "made_from"
    on_card: ClassVar[bool] = True
    counts_rows: ClassVar[bool] = True
    folder: ClassVar[str] = "attempts"

    def captioners(self) -> dict[str, list[str]]:
        """Return captioner -> the tiers that ask for it."""
        return captioners(self.recipe)

    def options(self, captioner: str) -> dict[str, Any]:
        """Return the recipe's options of a captioner."""
        return self.recipe.caption.options(captioner)

    def prompt(self, captioner: str) -> Prompt:
        """Return what a captioner is asked first."""
        return self.named(self.options(captioner).get("prompt", "describe_v1"))

    def named(self, name: str) -> Prompt:
        """Return a prompt of the recipe or a bundled one."""
        return prompt_named(name, prompts_of(self.recipe))

    def made_by(self, captioner: str) -> str:
        """Return the digest of what a captioner's words depend on beside the picture, the question and the seed."""
        weights = captioner_weights(captioner, self.options(captioner))
        settings = captioner_settings(captioner, self.options(captioner))
        return digest_of(["captions", self.version, settings, [file.record() for file in weights]])

    def settings(self) -> dict[str, Any]:
        """Return who captions which tiers, what each is asked, and what its words depend on."""
        return {
            name: {
                "tiers": tiers,
                "prompt": [self.prompt(name).name, self.prompt(name).text, self.prompt(name).without],
                **captioner_settings(name, self.options(name)),
            }
            for name, tiers in self.captioners().items()
        }

    def weights(self) -> tuple[WeightsFile, ...]:
        """Return the weights of every captioner in use."""
        return tuple(file for name in self.captioners() for file in captioner_weights(name, self.options(name)))

    def plan(self) -> list[Unit]:
        """Write what is asked of whom to `manifests/plan/caption/`."""
        tables = (
            (f"{name}-{shard}", table)
            for name, tiers in self.captioners().items()
            for shard, table in self._asked(name, tiers)
        )
        return self.units_of(write_plan(self.root, self.name, tables, self._planned_from()))

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

    def open(self) -> "CaptionWorker":
        """Load every captioner in use."""
        return CaptionWorker(
            self,
            {
                name: build_captioner(name, self.options(name), self.recipe.caption.batch_size)
                for name in self.captioners()
            },
        )

    def facts(self) -> dict[str, Any]:
        """Return `attempts`: captioner -> pictures that it has described."""
        return {"attempts": kept_by_kind(records_of(self.root, self.name))}


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


@dataclass(frozen=True)
class CaptionWorker:
    """Asks about a shard's planned pictures."""

    step: CaptionStep
    captioners: "dict[str, Captioner]"

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `captions/attempts/NAME.parquet`."""
        root, step, made_by = self.step.root, self.step, unit.reads["made_by"]
        planned = {row["uid"]: self._question(row) for row in read_table(root / unit.reads["plan"]).to_pylist()}
        earlier = {
            (uid, row["sha256"]): row
            for (uid, digest), row in earlier_rows(root, step.name, made_by, planned, step.made_from).items()
            if digest == made_from(row["sha256"], planned[uid]["prompt_sha256"], planned[uid]["seed"])
        }
        size = step.recipe.caption.batch_size or WITHOUT_NUMBER
        loop = WorkerLoop(unit.name, in_flight, size, bytes)
        captioner = self.captioners[unit.reads["captioner"]]
        rows = loop.run(
            unit_pairs(root, unit, planned),
            earlier,
            lambda pairs, _: partial(self._answered, captioner, planned, pairs),
        )
        noted = ("uid", "captioner", "prompt", "prompt_sha256", "seed")
        made = complete(({name: planned[uid][name] for name in noted if name in planned[uid]} for uid in planned), rows)
        made = [{**row, "captioner": captioner.name} for row in made]
        path = root / "captions" / step.folder / f"{unit.name}.parquet"
        write_table(path, stamp(pa.Table.from_pylist(made, schema=ATTEMPTED), made_by))
        return record_of(root, unit, path, made)

    def _question(self, row: Row) -> Row:
        """Return a planned row with its filled prompt and the sha256 of that."""
        filled = fill(self.step.named(row["prompt"]), row["alt"], row["top_caption"])
        return {**row, "filled": filled, "prompt_sha256": hashlib.sha256(filled.encode()).digest()}

    def _answered(self, captioner: "Captioner", planned: dict[bytes, Row], pairs: list[Pair]) -> Rows:
        """Return the rows of some pictures."""
        images = dict(pairs)
        asks = (Ask(uid, image, planned[uid]["filled"], planned[uid]["seed"]) for uid, image in pairs)
        return {
            answer.uid: answered(captioner, planned[answer.uid], images[answer.uid], answer)
            for answer in captioner.answers(asks)
        }


def answered(captioner: "Captioner", question: Row, image: bytes, answer: Any) -> Row:
    """Return the row of one answer."""
    sha256 = hashlib.sha256(image).digest()
    return {
        "uid": answer.uid,
        "sha256": sha256,
        "made_from": made_from(sha256, question["prompt_sha256"], question["seed"]),
        "captioner": captioner.name,
        "model": captioner.model,
        "revision": captioner.revision,
        **{name: question[name] for name in ("prompt", "prompt_sha256", "seed")},
        "text": None if answer.reason else answer.text,
        "tokens": answer.tokens,
        "prompt_tokens": answer.prompt_tokens,
        "at_limit": answer.at_limit,
        "reason": answer.reason,
    }


def made_from(picture_sha256: bytes, prompt_sha256: bytes, seed: int) -> bytes:
    """Return the digest of everything but the captioner that an answer depends on."""
    return hashlib.sha256(picture_sha256 + prompt_sha256 + seed.to_bytes(8, "big")).digest()
