"""Ask again only what failed: which reasons of which shards `pipeline run --retry-failed` means, kept until they are
done.

`manifests/plan/fetch-retry.json` notes for each shard which reasons are asked again; the note is part of the shard's
key, so a retry that was killed goes on, and a shard without such rows stays done.
"""

import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from manifests.files import FormatError, digest_of, parsing, read_field, read_table, write_json
from manifests.journal import ShardRecord, records_of
from manifests.reasons import OF_FETCH, TRANSIENT, is_among, is_known, is_status
from pipeline.execution.step import Step, Unit
from pipeline.recipes.schema import RecipeError

ALL_TRANSIENT = "transient"
"""What `--retry-failed` calls the reasons of TRANSIENT together."""


def parse_reasons(words: Sequence[str]) -> tuple[str, ...]:
    """Return the reasons that `--retry-failed` names, each once; the word `transient` stands for all of TRANSIENT.

    A word may hold several, with commas or spaces between them. Raises RecipeError for an unknown one, and for none.
    """
    named = [word for text in words for word in re.split(r"[,\s]+", text) if word]
    unknown = [word for word in named if word != ALL_TRANSIENT and word not in OF_FETCH and not is_status(word)]
    if unknown or not named:
        raise RecipeError(
            f"--retry-failed {unknown[0] if unknown else ''!r}: no such reason of fetch; choices: "
            f"{', '.join(sorted(OF_FETCH))}, http_404 (any status), http_5xx (any status of that hundred), "
            f"{ALL_TRANSIENT} (those that may have passed)"
        )
    reasons = [reason for word in named for reason in (TRANSIENT if word == ALL_TRANSIENT else (word,))]
    return tuple(dict.fromkeys(reasons))


def failed(root: Path, record: ShardRecord, again: Collection[str]) -> Counter[str]:
    """Count a shard's rows whose last attempt failed for one of these reasons."""
    path = root / record.files[-1].path
    try:
        table = read_table(path, ["last", "reason"])
    except (OSError, FormatError):
        return Counter()
    reasons = table.filter(pc.and_(table["last"], pc.is_valid(table["reason"])))["reason"].to_pylist()
    return Counter(reason for reason in reasons if is_among(reason, again))


def tell_retry(root: Path, again: Sequence[str]) -> None:
    """Print what will be asked again, by reason."""
    found = [counts for record in records_of(root, "fetch") if (counts := failed(root, record, again))]
    total = sum(found, Counter())
    if not total:
        print(f"retry: no row failed with {', '.join(again)}: nothing is asked again", file=sys.stderr)
        return
    listed = ", ".join(
        f"{reason} {count:,}" for reason, count in sorted(total.items(), key=lambda item: (-item[1], item[0]))
    )
    print(
        f"retry: {total.total():,} rows in {len(found):,} shards are asked again ({listed}); pictures that came stay",
        file=sys.stderr,
    )


def with_retries(step: Step, units: list[Unit]) -> list[Unit]:
    """Return the units with what is asked again in each, by an earlier `--retry-failed` that the plan still fits, or by
    this one's.

    Rows that an earlier version dropped for what is no reason (`http_0`) are asked again unasked: no manifest can name
    them. Raises nothing; writes the note of it.
    """
    path = step.root / "manifests" / "plan" / "fetch-retry.json"
    noted = _notes(path)
    notes = {unit.name: note for unit in units if (note := noted.get(unit.name)) and note["content"] == unit.content}
    records = {record.shard: record for record in records_of(step.root, "fetch")}
    for unit in units if records else ():
        record = records.get(unit.name)
        reasons = _again(step, record)
        if reasons and (record is None or failed(step.root, record, reasons)):
            notes[unit.name] = _note(step, unit, notes.get(unit.name), reasons)
    if notes != noted:
        write_json(path, {"shards": dict(sorted(notes.items()))}, sealed=True)
    return list(_marked(units, notes))


def _again(step: Step, record: ShardRecord | None) -> list[str]:
    """Return the reasons for which rows of a shard are asked again: those that the user named, and what is none."""
    dropped = () if record is None else sorted(record.dropped)
    return [*step.runtime.retry, *(name for name in dropped if not is_known(name))]


def _notes(path: Path) -> dict[str, dict[str, Any]]:
    try:
        notes = read_field(path, "shards", dict)
        with parsing(path, "not the notes of retries"):
            for note in notes.values():
                itemgetter("content", "round", "reasons")(note)
    except (OSError, FormatError):
        return {}
    return notes


def _note(step: Step, unit: Unit, before: dict[str, Any] | None, reasons: list[str]) -> dict[str, Any]:
    """Return a shard's note. One whose last retry is not done yet keeps its round, for more reasons."""
    if before is None:
        return {"content": unit.content, "round": 1, "reasons": reasons}
    (marked,) = _marked([unit], {unit.name: before})
    if step.journal.done(unit.name, step.key_of(marked)) is None:
        return {**before, "reasons": sorted({*before["reasons"], *reasons})}
    return {**before, "round": before["round"] + 1, "reasons": reasons}


def _marked(units: list[Unit], notes: Mapping[str, dict[str, Any]]) -> Iterator[Unit]:
    for unit in units:
        if note := notes.get(unit.name):
            unit = replace(
                unit, reads={**unit.reads, "again": note["reasons"]}, content=digest_of([unit.content, note["round"]])
            )
        yield unit
