"""Rehearse a run of any size: hours, bytes, requests, shards, files, memory and spill of each step, from measured
costs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from types import MappingProxyType
from typing import Any

from pipeline.analysis.costs import Costs, Measured
from pipeline.analysis.forecast import BYTES_PER_PIXEL, LIVE, forecast
from pipeline.analysis.rates import Rates
from pipeline.execution.step import Runtime
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.stages.registry import STAGES, stage_steps

SAMPLE = 20_000
"""Rows of the input that are judged to know the shares."""
REQUESTS = 1.1
"""Assumed requests to sites per planned row: redirects, another try, robots.txt once a host."""
TOGETHER = 0.13
"""Share of a driver's seconds that workers must have for its work to count as shared with them."""
GROWS = 0.1
"""MiB for each million rows from which a peak is told as one that grows."""
TOKENS, T5_WIDTH = 30, 2048
"""Tokens of a caption and width of flan-T5-XL, where features are stored: 2 bytes a number."""
WHERE = {"fetch": "network", "score": "gpus", "caption": "gpus", "encode": "gpus", "t5": "gpus"}
"""Steps that need the network or a model: their work is assumed, all else is measured."""


@dataclass(frozen=True)
class Part:
    """One step's plan or work, a manifest, or a question. `where`: driver, workers, both, network, gpus or cores;
    `peak_mib`: of its largest process; `memory_mib`: of all of them, at most; `written`: bytes that it leaves, in so
    many `files`; `steeper`: the shape of a time that outgrows its rows."""

    kind: str
    name: str
    where: str
    rows: int
    units: int
    cpu_s: float
    hours: float
    peak_mib: float
    read: int
    written: int
    spilled: int
    files: int
    memory_mib: float = 0.0
    requests: int = 0
    steeper: str = ""
    error: float = 0.0


@dataclass(frozen=True)
class Rehearsal:
    """A whole run. `expected`: rows at each place; `total`: of the steps, without questions; `beyond`: its rows over
    those of the largest run that was measured."""

    rows: int
    workers: int
    gpus: int
    expected: dict[str, int]
    steps: list[Part]
    questions: list[Part]
    total: dict[str, float]
    measured: dict[str, Any]
    beyond: float
    assumed: list[str] = field(default_factory=list)


def rehearse(
    recipe: Recipe,
    rows: int | None,
    workers: int,
    gpus: int,
    costs: Costs,
    rates: Mapping[str, float] = MappingProxyType({}),
) -> Rehearsal:
    """Return what a run of so many rows (None: those of the input) takes with this recipe, on so many worker processes
    and GPUs. `rates`: step -> rows/s of one worker or GPU, where they are known better than what is assumed. Raises
    RecipeError where neither rows nor an input are given."""
    expected, notes = _expected(recipe, rows, costs)
    area = max((tier.size for tier in recipe.tier.values()), default=256) ** 2 / 256**2
    run = _Run(recipe, workers, gpus, costs, expected, Rates(rates, costs.rates, gpus, area))
    steps = list(run.steps())
    questions = [run.part(thing, False) for thing in costs.measured if thing.kind == "question"]
    names = ("hours", "cpu_s", "read", "written", "files", "requests")
    total = {name: round(sum(getattr(part, name) for part in steps), 3) for name in names}
    for name in ("peak_mib", "memory_mib", "spilled"):
        total[name] = max((getattr(part, name) for part in steps), default=0)
    measured = {"file": str(costs.path), "rows": costs.sizes, "machine": dict(costs.machine)}
    beyond = round(expected["input"] / max(costs.sizes), 2)
    return Rehearsal(
        expected["input"],
        workers,
        gpus,
        expected,
        steps,
        questions,
        total,
        measured,
        beyond,
        [*notes, *run.assumed(steps), *run.lacking],
    )


def _expected(recipe: Recipe, rows: int | None, costs: Costs) -> tuple[dict[str, int], list[str]]:
    """Return rows at each place, and where the shares come from."""
    try:
        made = forecast(recipe, SAMPLE)
    except RecipeError as error:
        if rows is None:
            raise
        shares = costs.shares()
        note = f"rows at each place: in the shares of the measured runs, since the input says nothing ({error})"
        return {place: round(share * rows) for place, share in shares.items()}, [note]
    total = rows or made.rows
    planned = total * made.steps["select"]["mid"]
    scale = total / max(made.rows, 1)
    counts = {
        "input": float(total),
        "planned": planned,
        "fetched": planned * made.steps["fetch"]["mid"],
        "kept": made.kept["mid"] * scale,
        "packed": sum(
            min(ends["mid"] * scale, recipe.tier[name].max_pairs or ends["mid"] * scale)
            for name, ends in made.tiers.items()
        ),
    }
    notes = [
        f"rows at each place: from {made.sampled:,} sampled rows of the input; URLs that live: {LIVE[0]:.0%} to"
        f" {LIVE[1]:.0%} assumed, or what this run folder has measured; no exact duplicates"
    ]
    return {place: round(count) for place, count in counts.items()}, notes


@dataclass
class _Run:
    """A run of a size on so many workers, and what no cost was measured for."""

    recipe: Recipe
    workers: int
    gpus: int
    costs: Costs
    expected: Mapping[str, int]
    rates: Rates
    lacking: list[str] = field(default_factory=list)

    @property
    def shards(self) -> float:
        """Return the fetch shards of the run."""
        return self.expected["planned"] / self.recipe.fetch.shard_rows

    def steps(self) -> Iterator[Part]:
        """Yield plan and work of each step of every stage, and the manifests, in the order of a run."""
        known = {(thing.kind, thing.name): thing for thing in self.costs.measured}
        for stage in STAGES:
            if stage == "caption" and not any(tier.caption for tier in self.recipe.tier.values()):
                continue
            for step in stage_steps(self.recipe, stage, Runtime()):
                if step.name == "t5" and self.recipe.pretokenize.t5 != "precomputed":
                    continue
                plan, work = (known.get((kind, step.name)) for kind in ("plan", "work"))
                if plan:
                    yield self.part(plan, False)
                if step.name in WHERE:
                    yield self._assumed(step.name, plan)
                elif work:
                    yield self.part(work, step.beam)
                else:
                    self.lacking.append(f"{step.name}: left out, no cost of it was measured; {self.costs.path}")
            if manifest := known.get(("manifest", stage)):
                yield self.part(manifest, False)

    def part(self, thing: Measured, in_workers: bool) -> Part:
        """Return what a measured thing takes. `in_workers`: its units are done by workers alone."""
        rows = self.expected[thing.follows] * thing.ratio
        units = self._units(thing, rows)
        figures = {name: law.at(rows, self.shards) for name, law in thing.laws.items()}
        lanes = max(1.0, min(self.workers, units)) if in_workers else float(self.workers)
        seconds, shared = thing.seconds(rows, self.shards, lanes, in_workers)
        together = shared >= TOGETHER
        law = thing.laws["cpu_s"]
        return Part(
            thing.kind,
            thing.name,
            "workers" if in_workers else "driver and workers" if together else "driver",
            round(rows),
            ceil(round(units, 6)),
            round(figures["cpu_s"], 1),
            round(seconds / 3600, 4),
            round(figures["peak_mib"], 1),
            round(figures["read"]),
            round(figures["written"]),
            round(figures["spilled"]),
            round(figures["files"]),
            memory_mib=round(figures["peak_mib"] * (1 + (lanes if in_workers or together else 0)), 1),
            steeper=law.shape,
            error=round(law.error, 3),
        )

    def _units(self, thing: Measured, rows: float) -> float:
        """Return the units of a thing: as the recipe cuts its shards, else as in what was measured."""
        size = {
            "select": self.recipe.input.unit_rows,
            "fetch": self.recipe.fetch.shard_rows,
            "score": self.recipe.fetch.shard_rows,
            "pack": self.recipe.pretokenize.shard_rows,
        }.get(thing.name)
        return rows / size if size and thing.kind != "question" else thing.units(rows)

    def _assumed(self, name: str, plan: Measured | None) -> Part:
        """Return what the network and models take: nothing of it is measured by the benchmark."""
        tiers = self.recipe.tier
        rows = {"fetch": self.expected["planned"], "score": self.expected["fetched"]}.get(name, self.expected["packed"])
        if name == "caption":
            rows = round(rows * sum(bool(tier.caption) for tier in tiers.values()) / max(len(tiers), 1))
        own = name in ("fetch", "score") or plan is None
        units = ceil(self.shards if own or plan is None else plan.units(self.expected[plan.follows] * plan.ratio))
        if name == "t5":  # features are made where they are packed
            units = ceil(rows / self.recipe.pretokenize.shard_rows)
        size = {
            "fetch": self.expected["fetched"] / max(rows, 1) * self.recipe.store_side**2 * 1.4 * BYTES_PER_PIXEL + 300,
            "score": 80.0,
            "caption": 400.0,
            "encode": 100 + 2 * self.rates.area * 256,
            "t5": 2.0 * TOKENS * T5_WIDTH,
        }[name]
        return Part(
            "work",
            name,
            "network" if name == "fetch" else "gpus" if self.rates.of(name).each == "GPU" else "cores",
            rows,
            units,
            0.0,
            round(rows / self.rates.rows_per_s(name, self.workers) / 3600, 4),
            0.0,
            0,
            round(rows * size),
            0,
            units * (4 if name == "fetch" else 1),
            requests=round(rows * REQUESTS) if name == "fetch" else 0,
        )

    def assumed(self, steps: Sequence[Part]) -> Iterator[str]:
        """Yield what was taken for granted, and what each thing's laws stand on where that is little."""
        cores = self.costs.machine.get("cores", "?")
        yield f"each worker is a core as fast as one of this machine's {cores}; one disk serves all as it did one"
        yield "rows are spread over files and clusters as in the measured runs; a step's laws go on beyond the largest"
        yield "what two workers divided of one's seconds all workers divide; the rest is the driver's"
        yield "memory that was the same within 15 % in the two largest runs stays so; all else grows as it did"
        yield f"fetch: {REQUESTS:g} requests a row; no site or network is slower"
        yield f"pictures of {self.recipe.store_side} px at {BYTES_PER_PIXEL} bytes a pixel"
        yield "memory of fetch and of steps with a model: not measured; it depends on shards and batches, not rows"
        yield from self.rates.told([part.name for part in steps if part.kind == "work" and part.name in WHERE])
        shown = {(part.kind, part.name) for part in steps}
        for thing in (one for one in self.costs.measured if (one.kind, one.name) in shown or one.kind == "question"):
            yield from _stands_on(thing)


def _stands_on(thing: Measured) -> Iterator[str]:
    """Yield what is shaky about a thing's laws."""
    name = thing.name if thing.kind == "work" else f"{thing.kind} {thing.name}"
    if thing.of_one_size:
        yield f"{name}: measured at one size only, taken as so much a row"
    elif thing.lone:
        yield f"{name}: only the largest run worked by parts; its memory is taken as that of every larger one"
    elif (growth := thing.laws["peak_mib"].per_row * 1e6) >= GROWS:
        yield f"{name}: its memory grew from run to run and is let go on, {growth:,.1f} MiB a million rows of its own"


def plain(made: Rehearsal) -> dict[str, Any]:
    """Return the rehearsal for JSON."""
    return asdict(made)


def lines(made: Rehearsal) -> Iterator[str]:
    """Yield the printed rehearsal."""
    yield f"rehearsal: {made.rows:,} rows, {made.workers} workers, {made.gpus} GPUs"
    yield "  " + ", ".join(f"{place} {count:,}" for place, count in made.expected.items() if place != "input")
    yield (
        "\n  step                          rows     shards       CPU h       hours   peak MiB    all MiB      written"
        "      spilled      files  where"
    )
    for part in made.steps:
        yield _line(part)
    total = made.total
    yield (
        f"  {'in all':<21}{'':>13}{'':>11}{total['cpu_s'] / 3600:>12,.2f}{total['hours']:>12,.2f}"
        f"{total['peak_mib']:>11,.0f}{total['memory_mib']:>11,.0f}{_size(total['written']):>13}"
        f"{_size(total['spilled']):>13}{total['files']:>11,.0f}"
    )
    yield f"  requests to sites: {total['requests']:,.0f}; read from files: {_size(total['read'])}"
    yield "  peak MiB: of the largest process; all MiB: of driver and workers together, at most"
    if made.questions:
        yield "\n  questions to that run"
        yield from (_line(part) for part in made.questions)
    sizes = ", ".join(f"{rows:,}" for rows in made.measured["rows"])
    yield f"\n  costs: {made.measured['file']}, runs of {sizes} rows; this run is {made.beyond:g} x the largest"
    yield from (f"  assumed: {text}" for text in made.assumed)


def _line(part: Part) -> str:
    steep = {"near": " (compares hashes)", "square": " (grows with the square)"}.get(part.steeper, "")
    name = f"{part.kind} {part.name}" if part.kind in ("plan", "manifest") else part.name
    known = part.where not in ("network", "gpus", "cores")
    cpu = f"{part.cpu_s / 3600:>12,.2f}" if known else f"{'?':>12}"
    memory = f"{part.peak_mib:>11,.0f}{part.memory_mib:>11,.0f}" if known else f"{'?':>11}{'?':>11}"
    return (
        f"  {name:<21}{part.rows:>13,}{part.units:>11,}{cpu}{part.hours:>12,.2f}{memory}"
        f"{_size(part.written):>13}{_size(part.spilled):>13}{part.files:>11,}  {part.where}{steep}"
    )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.2f} TB"
