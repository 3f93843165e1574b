"""Read what a finished filter stage has stored, shard by shard, for questions that change nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.files import digest_of, read_present, read_schema
from manifests.journal import STEP, Journal, records_of, upstream
from manifests.schema import COLUMNS
from pipeline.execution.step import Step
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.steps.decide import Decide
from pipeline.steps.dedup import Dedup
from pipeline.steps.fetch.step import Fetch
from pipeline.steps.score import Score
from pipeline.steps.select import Select

HELD = b"tessera_held"
"""Metadata of `ledger/select`: the columns, with commas, whose values it keeps of rows that a rule dropped. Without it:
none."""
FIRST = "first: pipeline run --stage filter"


@dataclass(frozen=True)
class Shard:
    """One shard of the input: its rows in `ledger/select` and, in the same order, in `ledger/final`."""

    name: str
    rows: int
    ledger: Path
    final: Path

    def finals(self, columns: list[str]) -> pa.Table:
        """Return these columns of the final rows; those that the ledger does not have are left out."""
        return read_present(self.final, columns)

    def selected(self, columns: list[str]) -> pa.Table:
        """Return these columns of the selected rows; those that only scorers know are left out."""
        return read_present(self.ledger, columns)

    def held(self) -> frozenset[str]:
        """Return the columns whose values the ledger keeps of rows that a rule dropped."""
        told = read_schema(self.ledger).metadata.get(HELD, b"").decode("utf-8", "replace")
        return frozenset(name for name in told.split(",") if name)


@dataclass(frozen=True)
class Stored:
    """A finished filter stage: its shards, and the settings that its steps ran with."""

    root: Path
    shards: tuple[Shard, ...]
    settings: dict[str, dict[str, Any]]

    @property
    def rules_before(self) -> dict[str, Any]:
        """Return the rules that decide ran with: {"filter": [...], "tiers": [[name, rules], ...]}."""
        return self.settings["decide"]


def open_stored(root: Path, command: str) -> Stored:
    """Return what filter left in a run folder. Raises RecipeError where it has not run to its end, or ran before this
    version."""
    decided = records_of(root, "decide")
    if not decided:
        raise RecipeError(f"{command}: filter has not run to its end in {str(root)!r}; {FIRST}")
    settings, keys = {}, {}
    for step in ("select", "fetch", "score", "dedup", "decide"):
        entry = Journal(root, step).note()
        if entry is None:
            raise RecipeError(
                f"{command}: {root} does not say how {step} ran (no whole manifests/journal/{step}/{STEP}); {FIRST}"
            )
        settings[step], keys[step] = entry["settings"], entry["own_key"]
    now = digest_of([keys["decide"], "00000", upstream(root, "select", "fetch", "score", "dedup")])
    if decided[0].key != now:
        raise RecipeError(f"{command}: a step has run in {root} since its rows got their fates; {FIRST} --step decide")
    finals = {Path(file.path).stem: root / file.path for file in decided[0].files}
    shards = tuple(
        Shard(r.shard, r.rows_in, root / r.files[0].path, finals[r.shard]) for r in records_of(root, "select")
    )
    if shards and "step" not in read_schema(shards[0].final).names:
        raise RecipeError(f"{command}: {root}/ledger/final is of an older version; {FIRST} --step decide")
    return Stored(root, shards, settings)


def check_askable(recipe: Recipe, stored: Stored) -> None:
    """Raise RecipeError where the recipe differs from the run's in more than rules and tiers: what that would change is
    not stored."""
    for kind in (Select, Fetch, Score, Dedup, Decide):
        step: Step = kind(recipe, stored.root)
        before, then = stored.settings[step.name], _plain(step.settings())
        for key in sorted({*before, *then}):
            if before.get(key) == then.get(key) or _may_change(step.name, key, before.get(key), then.get(key)):
                continue
            raise RecipeError(
                f"whatif: {_says(step.name, key)} differs from what {stored.root} was made with, and stored values"
                f" cannot say what that would do: {step.name} would have to run again. What may be asked: filter.rules,"
                " and the rules and order of tiers"
            )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    import json

    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _may_change(step: str, key: str, before: Any, then: Any) -> bool:
    """Tell whether stored values can answer for this key; fillable columns and origins follow from [score], which is
    checked itself."""
    if step == "select":
        return key in ("rules", "fillable") or (key == "detect" and before and not then)
    return step == "decide"


def _says(step: str, key: str) -> str:
    if (step, key) == ("fetch", "store_side"):
        return "fetch.store_side (by default 1.1 x the size of the largest tier)"
    if (step, key) == ("select", "detect"):
        return "a rule that reads the language of the text (it was never detected here)"
    return {"select": f"the input's {key}", "score": f"score.{key}"}.get(step, f"{step}.{key}")


def typed(table: pa.Table, columns: tuple[str, ...]) -> pa.RecordBatch:
    """Return these columns in their types as one batch; one that is not there is null."""
    arrays = []
    for name in columns:
        kind = COLUMNS[name].type if name in COLUMNS else table.schema.field(name).type
        if name not in table.column_names:
            arrays.append(pa.nulls(table.num_rows, kind))
            continue
        column = table[name].combine_chunks()
        arrays.append(column if column.type == kind else column.cast(kind))
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))
