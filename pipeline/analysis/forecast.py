"""Predict a run from a sample of its input: yield per rule with intervals, rows kept, hours and bytes per stage."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.verdicts import evaluate
from manifests.files import FormatError, parsing, read_json, write_json
from manifests.journal import records_of
from pipeline.execution.step import Unit
from pipeline.inputs.files import InputFile, look_at_inputs
from pipeline.inputs.input_list import registered_files
from pipeline.inputs.parquet import BrokenGroup, RowGroups
from pipeline.recipes.rules import build_rules
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.steps.select import Select, SelectWorker

PLAN = "plan.json"
LIVE = (0.5, 0.75)
"""Share of URLs that still give a picture: assumed for LAION sets, 2-3 years after they were made (img2dataset's issue
439)."""
TWINS = (0.0, 1 / 3)
"""Share of pictures lost to near duplicates: assumed; published counts of LAION subsets run up to a third."""
Z = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""
RATES = {"fetch": 50.0, "score": 20.0, "caption": 0.5, "encode": 5.0}
"""Assumed rows/s of one machine with two CPU cores; the benchmarks measure yours. A GPU is one to three orders of
magnitude faster."""
BYTES_PER_PIXEL = 0.4
"""Assumed for JPEGs of photographs at quality 95."""


@dataclass(frozen=True)
class Share:
    """A share with its interval, 0..1, and where it comes from: sample, assumed, measured, or unknown."""

    low: float
    mid: float
    high: float
    source: str


@dataclass(frozen=True)
class Forecast:
    """What is expected of the whole input. `steps`: name -> share of the rows that reach it; `stages`: name -> hours,
    bytes, source."""

    rows: int
    sampled: int
    steps: dict[str, dict[str, Any]]
    kept: dict[str, int]
    tiers: dict[str, dict[str, int]]
    dropped: dict[str, dict[str, int]]
    stages: dict[str, dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def wilson(hits: int, of: int) -> Share:
    """Return a share with its 95 % Wilson interval (E. B. Wilson, 1927); 0..1 where nothing was seen."""
    if not of:
        return Share(0.0, 0.5, 1.0, "unknown")
    share, square = hits / of, Z * Z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = Z * sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    return Share(max(0.0, middle - half), share, min(1.0, middle + half), "sample")


def forecast(recipe: Recipe, rows: int) -> Forecast:
    """Sample about `rows` rows of the input and predict the run. Touches no URL. Raises RecipeError for a fault of the
    recipe."""
    files = _tables(recipe)
    total = _chosen(recipe, sum(file.rows for file in files))
    started = time.perf_counter()
    parts = list(_sample(recipe, files, rows))
    seconds = time.perf_counter() - started
    table = pa.concat_tables(parts) if parts else None
    sampled = table.num_rows if table is not None else 0
    reasons = Counter(table["reason"].to_pylist()) if table is not None else Counter[str | None]()
    passed = reasons.pop(None, 0)
    live = _measured_live(recipe)
    steps: dict[str, Share] = {
        "select": wilson(passed, sampled),
        "fetch": live,
        "near_duplicate": Share(1 - TWINS[1], 1 - sum(TWINS) / 2, 1.0, "assumed"),
    }
    survivors = table.filter(pc.is_null(table["reason"])).combine_chunks() if table is not None else None
    tiers = _tiers(recipe, survivors)
    rules = _with_select(recipe, _rules(recipe, survivors), reasons, sampled)
    reach = {
        end: total * getattr(steps["select"], end) * getattr(live, end) * getattr(steps["near_duplicate"], end)
        for end in ("low", "mid", "high")
    }
    kept = {end: int(reach[end] * getattr(tiers["*"], end)) for end in reach}
    by_tier = {
        name: {end: int(reach[end] * getattr(share, end)) for end in reach}
        for name, share in tiers.items()
        if name != "*"
    }
    dropped = {str(reason): _counts(wilson(count, sampled), total) for reason, count in reasons.most_common()}
    dead = {"low": 1 - live.high, "mid": 1 - live.mid, "high": 1 - live.low}
    dropped["fetch"] = {end: int(total * getattr(steps["select"], end) * share) for end, share in dead.items()}
    stages = _stages(recipe, total, total * steps["select"].mid, by_tier, sampled / max(seconds, 1e-6))
    shown = {name: asdict(share) for name, share in {**steps, **rules}.items()}
    return Forecast(total, sampled, shown, kept, by_tier, dropped, stages, _notes(rules))


def _tables(recipe: Recipe) -> list[InputFile]:
    """Return the input's files that can be opened, each a Parquet table or one that filter has made of it. Raises
    RecipeError for one of which none is made yet: its rows are not known without reading all of it."""
    try:
        made = {file.seen: file for file in registered_files(recipe.root) if file.made}
    except (OSError, FormatError):
        made = {}
    files = [file for file in look_at_inputs(recipe) if not file.fault]
    tables = [made.get(file.seen, file) if file.raw else file for file in files]
    unread = [file.name for file in tables if file.raw]
    if unread:
        raise RecipeError(
            f"plan: {unread[0]} is no Parquet table; filter reads it into one, once: pipeline run --stage filter --step"
            " select; plan after that"
        )
    return tables


def _notes(rules: dict[str, Share]) -> list[str]:
    """Return what the intervals mean, and which rules' values a sample cannot know."""
    notes = ["intervals are 95 % and take sampled rows as independent; copies of one pair are not seen in a sample"]
    return notes + [
        f"{name}: of some rows only decoding or a scorer knows the value; the range says what they may do"
        for name, share in rules.items()
        if share.source == "unknown"
    ]


def _chosen(recipe: Recipe, rows: int) -> int:
    """Return about how many rows `input.sample` and `input.limit` leave."""
    return min(round(rows * (recipe.input.sample or 1.0)), recipe.input.limit or rows)


def _counts(share: Share, total: int) -> dict[str, int]:
    return {end: int(total * getattr(share, end)) for end in ("low", "mid", "high")}


def _sample(recipe: Recipe, files: list[InputFile], rows: int) -> Iterator[pa.Table]:
    """Yield the judged head of row groups, in an order drawn from a hash of file and group, until there are enough
    rows."""
    places = [
        (file, group, int(sum(file.groups[:group])))
        for file in files
        for group in range(len(file.groups))
        if file.groups[group]
    ]
    places.sort(key=lambda place: hashlib.sha256(f"{place[0].name}:{place[1]}:{recipe.input.seed}".encode()).digest())
    worker: SelectWorker = Select(recipe, recipe.root).open()
    each = max(256, ceil(rows / max(len(places), 1)))
    taken = 0
    for file, group, first in places:
        if taken >= rows:
            return
        unit = Unit("sample", {"name": file.name, "bound": None}, "")
        with RowGroups(file.url) as source:
            reader = replace(worker, batch_rows=min(each, rows - taken))
            try:
                table = next(reader.evaluated(unit, source, group, first), None)
            except BrokenGroup:
                continue
        if table is not None:
            taken += table.num_rows
            yield table


def _verdicts(recipe: Recipe, table: pa.Table | None) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield (place, rule, fails, unknown) of every rule for the rows that pass select."""
    rules = build_rules(recipe)
    if table is None:
        return
    from pipeline.analysis.stored_run import typed

    batch = typed(table, rules.columns) if rules.columns else None
    for place, some in (("filter", rules.everywhere), *rules.tiers.items()):
        for rule in some:
            passes, null = (
                evaluate(rule, batch)
                if batch is not None
                else (np.ones(table.num_rows, bool), np.zeros(table.num_rows, bool))
            )
            yield place, rule.name, ~passes & ~null, null


def _rules(recipe: Recipe, table: pa.Table | None) -> dict[str, Share]:
    found = {}
    for place, name, fails, unknown in _verdicts(recipe, table):
        known, rows = int((~unknown).sum()), len(unknown)
        share = wilson(known - int(fails.sum()), known)
        gap = 1 - known / rows if rows else 1.0
        low, high = share.low * (1 - gap), share.high * (1 - gap) + gap
        found[f"{place}.{name}"] = Share(low, (low + high) / 2, high, "unknown") if gap > 0 else share
    return found


def _with_select(
    recipe: Recipe, later: dict[str, Share], reasons: Counter[str | None], sampled: int
) -> dict[str, Share]:
    """Return the rules' yields, those of [filter] over the rows that reach each of them: what select drops, and what is
    judged later."""
    names = [rule.name for rule in build_rules(recipe).everywhere]
    reach, found = sampled - sum(count for reason, count in reasons.items() if reason not in names), dict(later)
    for name in names:
        here, rest = wilson(reach - reasons[name], reach), later[f"filter.{name}"]
        reach -= reasons[name]
        source = rest.source if rest.source == "unknown" else here.source
        ends = (here.low * rest.low, here.high * rest.high) if source == "unknown" else (here.low, here.high)
        found[f"filter.{name}"] = Share(ends[0], sum(ends) / 2 if source == "unknown" else here.mid, ends[1], source)
    return found


def _tiers(recipe: Recipe, table: pa.Table | None) -> dict[str, Share]:
    """Return tier -> share of fetched rows that it takes, from "what is unknown fails" to "what is unknown passes";
    "*": any tier."""
    rows = table.num_rows if table is not None else 0
    sure = {name: np.ones(rows, bool) for name in ("filter", *recipe.tier)}
    perhaps = {name: np.ones(rows, bool) for name in sure}
    for place, _, fails, unknown in _verdicts(recipe, table):
        sure[place] &= ~fails & ~unknown
        perhaps[place] &= ~fails
    found, least, most = {}, np.zeros(rows, bool), np.zeros(rows, bool)
    for name in recipe.tier:
        low, high = sure["filter"] & sure[name], perhaps["filter"] & perhaps[name]
        least, most = least | low, most | high
        found[name] = _between(low, high)
    return {**found, "*": _between(least, most)}


def _between(low: Any, high: Any) -> Share:
    ends = wilson(int(low.sum()), len(low)), wilson(int(high.sum()), len(high))
    known = bool((low == high).all())
    return Share(ends[0].low, (ends[0].mid + ends[1].mid) / 2, ends[1].high, "sample" if known else "unknown")


def _measured_live(recipe: Recipe) -> Share:
    """Return the live rate that this folder's own fetch has measured, else what is assumed."""
    found = records_of(recipe.root, "fetch")
    tried = sum(record.rows_in for record in found)
    if tried:
        share = wilson(sum(record.rows_out for record in found), tried)
        return Share(share.low, share.mid, share.high, "measured in this run folder")
    return Share(LIVE[0], sum(LIVE) / 2, LIVE[1], "assumed")


def _stages(
    recipe: Recipe, rows: int, tried: float, tiers: dict[str, dict[str, int]], rate: float
) -> dict[str, dict[str, Any]]:
    """Return stage -> hours, bytes and the rate's source, for the middle of the estimates."""
    fetched = records_of(recipe.root, "fetch")
    pairs = sum(record.rows_out for record in fetched)
    size = (
        sum(record.files[0].bytes for record in fetched) / pairs
        if pairs
        else recipe.store_side**2 * 1.4 * BYTES_PER_PIXEL
    )
    of_size = "measured in this run folder" if pairs else f"assumed {BYTES_PER_PIXEL} bytes a pixel"
    live = tried * _measured_live(recipe).mid
    told = sum(count["mid"] for name, count in tiers.items() if recipe.tier[name].caption)
    coded = sum(min(count["mid"], recipe.tier[name].max_pairs or count["mid"]) for name, count in tiers.items())
    made = sum(count["mid"] * (2 * (recipe.tier[name].size // 16) ** 2 + 1000) for name, count in tiers.items())

    def stage(work: float, speed: float, bytes_: float, source: str) -> dict[str, Any]:
        """Return a stage's rows, rows/s, hours and bytes."""
        return {
            "rows": int(work),
            "rows_per_s": round(speed, 2),
            "hours": round(work / speed / 3600, 3),
            "bytes": int(bytes_),
            "source": source,
        }

    return {
        "select": stage(rows, rate, rows * 120, "rate measured on the sample, one process; bytes assumed 120 a row"),
        "fetch": stage(tried, RATES["fetch"], live * size, f"rate assumed, one machine; bytes {of_size}"),
        "score": stage(live, RATES["score"], live * 80, "rate assumed, two CPU cores; bytes 80 a row"),
        "caption": stage(told, RATES["caption"], told * 400, "rate assumed, two CPU cores; bytes 400 a caption"),
        "pretokenize": stage(
            coded, RATES["encode"], made, "rate assumed, two CPU cores; two bytes a code and 1 kB a sample"
        ),
    }


def write_forecast(root: Path, made: Forecast) -> Path:
    """Write `plan.json` into the run folder, outside every digest, and return its path."""
    path = root / PLAN
    write_json(path, asdict(made))
    return path


def read_forecast(root: Path) -> dict[str, Any] | None:
    """Return what `plan.json` predicted, or None where there is none."""
    try:
        made = read_json(root / PLAN)
        with parsing(root / PLAN, "not a forecast"):
            spans = [made["kept"], *made["tiers"].values(), *made["dropped"].values()]
            numbers = [made["rows"], *(number for span in spans for number in (span["low"], span["high"]))]
            if not all(isinstance(number, int) for number in numbers):
                raise TypeError("a number of rows is something else")
    except (OSError, FormatError):
        return None
    return made


def beside(
    root: Path, rows_in: int, kept: int, dropped: dict[str, int], tiers: dict[str, int]
) -> list[tuple[str, str, str]]:
    """Return (what, predicted, actual) lines of a finished filter stage; none where nothing was predicted."""
    made = read_forecast(root)
    if made is None:
        return []

    def span(ends: dict[str, int]) -> str:
        return f"{ends['low']:,} to {ends['high']:,}"

    found = [("rows in", f"{made['rows']:,}", f"{rows_in:,}"), ("kept", span(made["kept"]), f"{kept:,}")]
    found += [(f"tier {name}", span(ends), f"{tiers[name]:,}") for name, ends in made["tiers"].items() if name in tiers]
    found += [
        (str(reason), span(ends), f"{dropped.get(reason, 0):,}")
        for reason, ends in made["dropped"].items()
        if reason != "fetch"
    ]
    return found


def lines(made: Forecast, recipe: Recipe) -> Iterator[str]:
    """Yield the printed forecast."""
    yield f"plan: {made.sampled:,} rows sampled of {made.rows:,}"
    yield "\n  share that passes         low     mid    high  from"
    for name, share in made.steps.items():
        yield f"  {name:<24}{share['low']:>6.1%}{share['mid']:>8.1%}{share['high']:>8.1%}  {share['source']}"
    yield "\n  expected rows                  low             mid            high"
    for name, ends in {"kept": made.kept, **{f"tier {name}": ends for name, ends in made.tiers.items()}}.items():
        yield f"  {name:<20}{ends['low']:>14,}{ends['mid']:>16,}{ends['high']:>16,}"
    for name, ends in made.dropped.items():
        yield f"  dropped {name:<12}{ends['low']:>14,}{ends['mid']:>16,}{ends['high']:>16,}"
    yield "\n  stage             rows     rows/s       hours             bytes  from"
    for name, one in made.stages.items():
        yield (
            f"  {name:<12}{one['rows']:>10,}{one['rows_per_s']:>11,}{one['hours']:>12,}{one['bytes']:>18,} "
            f" {one['source']}"
        )
    yield from (f"  note: {note}" for note in made.notes)
    yield f"  written to {recipe.root / PLAN}; the filter stage's summary and the report show it beside what came out"
