"""caption / judge: which words of a captioner count for each picture, from stored measures; no model and no GPU."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioning.base import captioner_promise
from captioning.corpus.words import caption_keys
from captioning.gate.config import ACTIONS, FLAGS
from captioning.gate.flags import Bools, flag_table
from captioning.gate.sentences import first_sentence, one_line
from captioning.gate.verdicts import DROP, FAILED, NONE, ORIGINS, SAID, Verdicts, settle
from manifests.files import digest_of, read_table, write_table
from manifests.journal import ShardRecord, kept_by_kind, records_of, upstream
from manifests.plans import plan_digests
from manifests.tables import ATTEMPTED, CAPTIONED
from pipeline.execution.in_flight import InFlight
from pipeline.execution.step import Step, Unit
from pipeline.recipes.captions import captioners, untrained_captions
from pipeline.recipes.schema import Recipe
from pipeline.recipes.user_captioners import captioner_options
from pipeline.steps.caption import texts_of_shard
from pipeline.steps.captions import captions_of_before
from pipeline.steps.kept_pairs import Row, record_of
from pipeline.steps.measure import MEASURED, texts_beside
from pipeline.steps.repeats import counts_repeats, repeated

REASON = "caption_"
"""Before the flag that took a picture's caption: the reason of its row. The pair stays kept."""
STEPS = ("caption", "measure", "recaption", "remeasure")
NOTED = ("prompt", "prompt_sha256", "seed", "text", "tokens", "prompt_tokens", "at_limit")
"""What stands of every attempt beside the caption that came of them."""
MADE = ("model", "revision", "prompt", "prompt_sha256")
"""What made the caption that counts; null where it is the input's own."""


@dataclass(frozen=True)
class JudgeStep(Step):
    """Units are (captioner, shard of pairs)."""

    name: ClassVar[str] = "judge"
    version: ClassVar[int] = 1
    counts_rows: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        """Return thresholds, actions, and how many pictures may share a caption."""
        if not captioners(self.recipe):
            return {}
        gate = self.recipe.caption.gate
        actions = {flag: gate.action(flag) for flag in FLAGS}
        asked = ("retry_prompt", "retry_seed", "actions")
        return {
            **gate.model_dump(mode="json", exclude=set(asked)),
            "actions": actions,
            "audit": self.recipe.caption.audit.model_dump(mode="json"),
        }

    def plan(self) -> list[Unit]:
        """Take attempts and measures as they lie."""
        records = {step: {record.shard: record for record in records_of(self.root, step)} for step in STEPS}
        planned = plan_digests(self.root, "fetch")
        counted = upstream(self.root, "repeats") if counts_repeats(self.recipe) else ""
        units = []
        for name in records["measure"]:
            captioner, _, shard = name.rpartition("-")
            there = {step: records[step].get(name) for step in STEPS}
            reads: dict[str, Any] = {"captioner": captioner, "shard": shard, "anew": bool(counted)}
            reads |= {step: record.files[0].path for step, record in there.items() if record}
            content = [record.content if record else None for record in there.values()]
            units.append(Unit(name, reads, digest_of([content, planned.get(shard, ""), counted])))
        return units

    def notes(self) -> list[str]:
        """Warn of captions that no training draws."""
        return untrained_captions(self.recipe)

    def results(self, records: Sequence[ShardRecord]) -> Sequence[ShardRecord]:
        """Return the captions of before, where none was judged."""
        return records or captions_of_before(self.root)

    def open(self) -> "JudgeWorker":
        """Return a worker; nothing to load."""
        return JudgeWorker(self)

    def facts(self) -> dict[str, Any]:
        """Return `captioners`: captioner -> pictures, attempts, flags and actions of its captions; of captions of
        before how many there are."""
        if before := captions_of_before(self.root):
            return {"captioners": kept_by_kind(before)}
        found: dict[str, Tally] = {}
        for record in records_of(self.root, self.name):
            name = record.shard.rpartition("-")[0]
            columns = ["flags", "action", "origin", "attempts", "reason"]
            found.setdefault(name, Tally()).add(read_table(self.root / record.files[0].path, columns))
        return {
            "captioners": {
                name: {
                    **tally.plain(),
                    "same_words_again": captioner_promise(name, captioner_options(self.recipe, name)),
                }
                for name, tally in found.items()
            }
        }


class Tally:
    """Counts of a captioner's rows."""

    def __init__(self) -> None:
        self.rows = self.captioned = self.attempts = 0
        self.tokens = {"prompt_tokens": 0, "tokens": 0}
        self.flags, self.actions, self.origins = Counter[str](), Counter[str](), Counter[str]()

    def add(self, table: pa.Table) -> None:
        """Count a table of captions."""
        self.rows += table.num_rows
        self.captioned += table["reason"].null_count
        tried = pc.list_flatten(table["attempts"])
        self.attempts += len(tried)
        for name in self.tokens:
            self.tokens[name] += sum((pc.sum(pc.struct_field(chunk, name)).as_py() or 0) for chunk in tried.chunks)
        for counts, column in (
            (self.flags, pc.list_flatten(table["flags"])),
            (self.actions, table["action"]),
            (self.origins, table["origin"]),
        ):
            counts.update({one["values"]: one["counts"] for one in pc.value_counts(column.drop_null()).to_pylist()})

    def plain(self) -> dict[str, Any]:
        """Return the counts for a manifest."""
        return {
            "pictures": self.rows,
            "captions": self.captioned,
            "attempts": self.attempts,
            "second_attempts": self.attempts - self.rows,
            **self.tokens,
            "flags": {flag: self.flags[flag] for flag in FLAGS if self.flags[flag]},
            "actions": {action: self.actions[action] for action in ACTIONS if self.actions[action]},
            "origins": {origin: self.origins[origin] for origin in ORIGINS if self.origins[origin]},
        }


@dataclass(frozen=True)
class Case:
    """Everything that is known of a captioner's words on the pictures of one shard, (N,) in the order of the attempts.

    `second`, `again`: second attempts and their measures, null where there is none.
    """

    first: pa.Table
    measures: pa.Table
    second: pa.Table
    again: pa.Table
    alts: Sequence[str | None]
    tops: Sequence[str | None]
    repeats: tuple[Bools, Bools]

    def flags(self, recipe: Recipe) -> tuple[dict[str, Bools], dict[str, Bools]]:
        """Return flag -> whether first attempts have it, and second ones."""
        gate = recipe.caption.gate
        return tuple(  # type: ignore[return-value]
            {**flag_table(measures, gate), "repeated_in_corpus": many}
            for measures, many in zip((self.measures, self.again), self.repeats, strict=True)
        )

    def verdicts(self, recipe: Recipe, *, asked: Bools | None = None) -> Verdicts:
        """Return what becomes of the captions. `asked`: where a second attempt that lacks would have been made."""
        first, second = self.flags(recipe)
        there = [
            np.where(table["text"].is_valid().to_numpy(zero_copy_only=False), SAID, FAILED).astype(np.int8)
            for table in (self.first, self.second)
        ]
        if asked is not None:
            there[1][~asked] = 0
        at_hand = [
            np.array([bool(text and text.strip()) for text in texts], np.bool_) for texts in (self.tops, self.alts)
        ]
        return settle(first, second, (there[0], there[1]), (at_hand[0], at_hand[1]), recipe.caption.gate)

    @property
    def was_asked(self) -> Bools:
        """Tell of each picture whether there is a second attempt, with or without words."""
        found: Bools = self.second["uid"].is_valid().to_numpy(zero_copy_only=False)
        return found


def read_case(step: Step, unit: Unit, counted: Path | None = None) -> Case:
    """Read what there is of a unit of judge. `counted`: where repeated captions are counted, not in the run's own
    table."""
    root, reads = step.root, unit.reads
    first = read_table(root / reads["caption"]).select(ATTEMPTED.names).combine_chunks()
    uids = first["uid"]
    tables = [first]
    for name, schema in (("measure", MEASURED), ("recaption", ATTEMPTED), ("remeasure", MEASURED)):
        table = read_table(root / reads[name]).select(schema.names) if name in reads else schema.empty_table()
        table = table.combine_chunks()
        tables.append(table.take(pc.index_in(uids, value_set=table["uid"].combine_chunks())))
    alts, tops = texts_beside(uids, texts_of_shard(root, reads["shard"]))
    most = step.recipe.caption.audit.max_repeats
    many = [_many(step, reads["captioner"], table["text"], most, counted) for table in (tables[0], tables[2])]
    return Case(tables[0], tables[1], tables[2], tables[3], alts, tops, (many[0], many[1]))


def _many(step: Step, captioner: str, texts: pa.ChunkedArray, most: int | None, counted: Path | None) -> Bools:
    """Tell of each text whether it stands beside more than `most` different pictures."""
    if most is None:
        return np.zeros(len(texts), np.bool_)
    keys = caption_keys(texts.combine_chunks())
    found: Bools = (repeated(step.root, captioner, keys, counted) > most) & keys.is_valid().to_numpy(
        zero_copy_only=False
    )
    return found


@dataclass(frozen=True)
class JudgeWorker:
    """Judges the captions of one shard."""

    step: JudgeStep

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `captions/NAME.parquet`."""
        root = self.step.root
        with in_flight.working_on(unit.name, ()):
            rows = list(rows_of(read_case(self.step, unit), unit.reads["captioner"], self.step.recipe))
            path = root / "captions" / f"{unit.name}.parquet"
            write_table(path, pa.Table.from_pylist(rows, schema=CAPTIONED))
        return record_of(root, unit, path, rows)


def rows_of(case: Case, captioner: str, recipe: Recipe) -> Iterator[Row]:
    """Yield the rows of CAPTIONED."""
    verdicts, flags = case.verdicts(recipe), [_named(found) for found in case.flags(recipe)]
    attempts = [table.to_pylist() for table in (case.first, case.second)]
    measures = [table.select(["sentence_ends", "sentence_tokens"]).to_pylist() for table in (case.measures, case.again)]
    for number, first in enumerate(attempts[0]):
        both = [(attempts[which][number], flags[which][number]) for which in (0, 1)]
        counted = int(verdicts.counts[number])
        origin = int(verdicts.origin[number])
        yield {
            "uid": first["uid"],
            "sha256": first["sha256"],
            "captioner": captioner,
            **_words(case, number, origin, attempts, measures, recipe.caption.gate.max_tokens),
            **{name: attempts[origin][number][name] for name in MADE if origin in (0, 1)},
            "flags": both[counted][1],
            "action": None if verdicts.failed[number] else ACTIONS[verdicts.action[number]],
            "origin": None if origin == NONE else ORIGINS[origin],
            "attempts": [
                {**{name: row[name] for name in NOTED}, "flags": found, "reason": row["reason"]}
                for row, found in both
                if row["uid"] is not None
            ],
            "reason": _reason(verdicts, number, first),
        }


def _named(flags: dict[str, Bools]) -> list[list[str]]:
    """Return the flags of each caption by name."""
    table = np.stack([flags[flag] for flag in FLAGS], axis=1)
    return [[FLAGS[place] for place in np.flatnonzero(row)] for row in table]


def _words(
    case: Case,
    number: int,
    origin: int,
    attempts: Sequence[Sequence[Row]],
    measures: Sequence[Sequence[Row]],
    most: int,
) -> dict[str, str | None]:
    """Return caption, short_caption and fit_caption of one picture; the last is empty where not even its first sentence
    fits, null where all of it does."""
    if origin not in (0, 1):
        text = (case.tops, case.alts)[origin - 2][number] if origin != NONE else None
        return {"caption": text, "short_caption": first_sentence(text) if text else None, "fit_caption": None}
    text = attempts[origin][number]["text"]
    ends, tokens = (measures[origin][number][name] for name in ("sentence_ends", "sentence_tokens"))
    fit = None
    if tokens and tokens[-1] > most:
        fit = next(
            (one_line(text[:end]) for end, count in zip(ends[::-1], tokens[::-1], strict=True) if count <= most), ""
        )
    return {"caption": text, "short_caption": one_line(text[: ends[0]]) if ends else text, "fit_caption": fit}


def _reason(verdicts: Verdicts, number: int, first: Row) -> str | None:
    """Return why a picture has no caption of this captioner."""
    if verdicts.failed[number]:
        return str(first["reason"])
    if verdicts.action[number] == DROP:
        return f"{REASON}{FLAGS[verdicts.cause[number]]}"
    return None
