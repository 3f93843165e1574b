"""Answer `pipeline whatif` for captions: what other thresholds and actions would leave, from stored measures."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioning.gate.config import ACTIONS, FLAGS
from captioning.gate.flags import Bools, flag_table
from captioning.gate.verdicts import DROP, KEEP, NONE, ORIGINS, RETRY, wants_retry
from manifests.files import read_table
from manifests.journal import ShardRecord, records_of
from pipeline.execution.step import settings_changed
from pipeline.recipes.captions import captioners
from pipeline.recipes.schema import Recipe
from pipeline.steps.caption import CaptionStep
from pipeline.steps.judge import REASON, Case, JudgeStep, Tally, read_case
from pipeline.steps.measure import Measure
from pipeline.steps.recaption import Recaption
from pipeline.steps.repeats import Repeats, counts_repeats

RETRIES = "captions/retries/"


@dataclass(frozen=True)
class CaptionCounts:
    """A captioner's pictures, those with a caption that counts, and the others by reason; flags of the attempts that
    count, what followed, and whose words stand there."""

    pictures: int
    captions: int
    dropped: dict[str, int]
    flags: dict[str, int]
    actions: dict[str, int]
    origins: dict[str, int]


@dataclass(frozen=True)
class CaptionFunnel:
    """What became of a captioner's captions, and what would. `open`: pictures that would be asked about a second time
    for the first time."""

    now: CaptionCounts
    then: CaptionCounts
    open: int = 0


@dataclass(frozen=True)
class CaptionAnswer:
    """The funnels by captioner, what differs from the run's recipe, and what is to be said of it. `stale`: a run would
    ask or measure anew, so that its figures may be others."""

    funnels: dict[str, CaptionFunnel] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stale: bool = False


def ask_captions(recipe: Recipe) -> CaptionAnswer:
    """Return what the recipe's [caption.gate] and [caption.audit] would leave of the captions of a run; nothing where
    none were judged, or where other captions would be made."""
    step = JudgeStep(recipe, recipe.root)
    note = step.journal.note()
    if note is None or not records_of(recipe.root, step.name):
        made = (recipe.root / "captions").exists()
        if captioners(recipe) and (made or recipe.caption.gate != type(recipe.caption.gate)()):
            said = "captions: none were judged in this run, so that nothing is said of them"
            return CaptionAnswer(notes=[said], stale=made)
        return CaptionAnswer()
    if settings_changed(CaptionStep(recipe, recipe.root)):
        return CaptionAnswer(
            notes=["captions: other questions or captioners would be asked than in this run"], stale=True
        )
    notes = []
    stale = settings_changed(Measure(recipe, recipe.root))
    if stale:
        notes.append(
            "captions would be measured anew (another tokenizer, detector, caption.gate.similarity, or version of the"
            " measures); these figures are from the measures that there are"
        )
    with tempfile.TemporaryDirectory() as folder:
        counted = Path(folder) / "repeats.parquet"
        if counts_repeats(recipe):
            PlannedRepeats(recipe, recipe.root).count(counted)
        then: dict[str, Then] = {}
        for unit in step.plan():
            name = unit.reads["captioner"]
            then.setdefault(name, Then()).add(read_case(step, unit, counted), name, recipe)
    funnels = {name: CaptionFunnel(_now(recipe, name), found.counts(), found.open) for name, found in then.items()}
    return CaptionAnswer(funnels, list(_differences(note["settings"], step.settings())), notes, stale)


def _differences(before: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of [caption.gate] and [caption.audit] that differ, as `KEY: before -> then`."""
    flat = [
        {**_prefixed("caption.gate", settings), **_prefixed("caption.audit", settings.get("audit", {}))}
        | _prefixed("caption.gate.actions", settings.get("actions", {}))
        for settings in (before, then)
    ]
    for key in dict.fromkeys((*flat[0], *flat[1])):
        was, now = (
            list(value) if isinstance(value, tuple) else value for value in (one.get(key, "none") for one in flat)
        )
        if was != now:
            yield f"{key}: {'none' if was is None else was} -> {'none' if now is None else now}"


def _prefixed(table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{table}.{key}": value for key, value in values.items() if not isinstance(value, Mapping)}


def _now(recipe: Recipe, captioner: str) -> CaptionCounts:
    tally, dropped = Tally(), Counter[str]()
    for record in records_of(recipe.root, JudgeStep.name):
        if record.shard.rpartition("-")[0] == captioner:
            columns = ["flags", "action", "origin", "attempts", "reason"]
            tally.add(read_table(recipe.root / record.files[0].path, columns))
            dropped.update(record.dropped)
    plain = tally.plain()
    return CaptionCounts(
        plain["pictures"], plain["captions"], _sorted(dropped), plain["flags"], plain["actions"], plain["origins"]
    )


@dataclass
class Then:
    """Adds up what becomes of a captioner's captions."""

    pictures: int = 0
    captions: int = 0
    open: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    origins: Counter[str] = field(default_factory=Counter)

    def add(self, case: Case, captioner: str, recipe: Recipe) -> None:
        """Count the pictures of one shard."""
        found = case.verdicts(recipe, asked=answered_before(case, captioner, recipe))
        waits = found.action == RETRY
        self.pictures += len(waits)
        self.open += int(waits.sum())
        self.captions += int((found.origin != NONE).sum())
        first, second = case.flags(recipe)
        for flag in FLAGS:
            has = np.where(found.counts, second[flag], first[flag]) & ~waits & ~found.failed
            self.flags[flag] += int(has.sum())
        for action in range(KEEP, DROP + 1):
            self.actions[ACTIONS[action]] += int(((found.action == action) & ~waits & ~found.failed).sum())
        for place, origin in enumerate(ORIGINS):
            self.origins[origin] += int((found.origin == place).sum())
        for place, flag in enumerate(FLAGS):
            self.dropped[f"{REASON}{flag}"] += int(((found.action == DROP) & (found.cause == place)).sum())
        self.dropped.update(case.first["reason"].filter(pa.array(found.failed)).to_pylist())

    def counts(self) -> CaptionCounts:
        """Return what was counted."""
        flags, actions, origins = (
            {key: n for key, n in one.items() if n} for one in (self.flags, self.actions, self.origins)
        )
        return CaptionCounts(self.pictures, self.captions, _sorted(self.dropped), flags, actions, origins)


def answered_before(case: Case, captioner: str, recipe: Recipe) -> Bools:
    """Tell of each picture whether the second question that the recipe would ask was asked in this run."""
    step = Recaption(recipe, recipe.root)
    same = pc.and_(
        pc.equal(case.second["prompt"], step.prompt(captioner).name),
        pc.equal(case.second["seed"], recipe.caption.gate.second_seed),
    )
    found: Bools = pc.fill_null(same, False).to_numpy(zero_copy_only=False).astype(np.bool_)
    return found


@dataclass(frozen=True)
class PlannedRepeats(Repeats):
    """Counts repeated captions as a run would: second attempts that the recipe would not ask for are left out."""

    def said_in(self, record: ShardRecord) -> pa.Table:
        """Return uid and text of the attempts of a shard."""
        said = super().said_in(record)
        if not record.files[0].path.startswith(RETRIES):
            return said
        gate = self.recipe.caption.gate
        measures = read_table(self.root / f"captions/measures/{record.shard}.parquet")
        again = measures["uid"].filter(pa.array(wants_retry(flag_table(measures, gate), gate)))
        return said.filter(pc.is_in(said["uid"], value_set=again.combine_chunks()))


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted((name, count) for name, count in counts.items() if count))
