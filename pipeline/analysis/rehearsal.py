"""Rehearse a run of any size: hours, bytes, requests, shards, files, memory and spill of each step, from measured
costs."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any

from pipeline.analysis.costs import Costs, Law, Measured
from pipeline.analysis.forecast import BYTES_PER_PIXEL, LIVE, forecast
from pipeline.execution.step import Runtime
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.stages.registry import STAGES, stage_steps

SAMPLE = 20_000
"""Rows of the input that are judged to know the shares."""
CORE = {"fetch": 25.0, "score": 10.0, "caption": 0.25, "encode": 2.5, "t5": 2.0}
"""Assumed rows/s of one worker on one core, all guards on (benchmarks/RESULTS.md: fetch 54.7 on two cores; a model on a
CPU is slow)."""
GFLOP = {"score": 160.0, "caption": 10_300.0, "encode": 138.5, "t5": 73.0}
"""Work of a row on a GPU: CLIP ViT-L/14 once; LLaVA 1.5 7B reading 636 tokens and writing 100; VQ-16 at 256 px
(measured, benchmarks/RESULTS.md; it grows with the square of the side); flan-T5-XL over 30 tokens."""
GPU_TFLOPS = 50.0
"""Assumed of one GPU in bf16, in useful work: a sixth of an A100's 312."""
DECODE = 130.0
"""Pictures/s that one core decodes (benchmarks/RESULTS.md: 137): what keeps a GPU waiting."""
REQUESTS = 1.1
"""Assumed requests to sites per planned row: redirects, another try, robots.txt once a host."""
SEVERAL = 1.15
"""How many times faster two workers must make a driver's work to count as work that is handed to workers."""
TOKENS, T5_WIDTH = 30, 2048
"""Tokens of a caption and width of flan-T5-XL, where features are stored: 2 bytes a number."""
WHERE = {"fetch": "network", "score": "gpus", "caption": "gpus", "encode": "gpus", "t5": "gpus"}
"""Steps that need the network or a model: their work is assumed, all else is measured."""


@dataclass(frozen=True)
class Part:
    """One step's plan or work, a manifest, or a question. `where`: driver, workers, both, network, gpus or cores;
    `written`: bytes that it leaves, in so many `files`; `steeper`: the shape of a time that outgrows its rows."""

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


def rehearse(recipe: Recipe, rows: int | None, workers: int, gpus: int, costs: Costs) -> Rehearsal:
    """Return what a run of so many rows (None: those of the input) takes with this recipe, on so many worker processes
    and GPUs. Raises RecipeError where neither rows nor an input are given."""
    expected, notes = _expected(recipe, rows, costs)
    run = _Run(recipe, workers, gpus, costs, expected)
    steps = list(run.steps())
    questions = [run.part(thing, "driver") for thing in costs.measured if thing.kind == "question"]
    names = ("hours", "cpu_s", "read", "written", "files", "requests")
    total = {name: round(sum(getattr(part, name) for part in steps), 3) for name in names}
    total["peak_mib"] = max((part.peak_mib for part in steps), default=0.0)
    total["spilled"] = max((part.spilled for part in steps), default=0)
    measured = {"file": str(costs.path), "rows": costs.sizes, "machine": dict(costs.machine)}
    beyond = round(expected["input"] / max(costs.sizes), 2)
    single = sorted({thing.name for thing in costs.measured if thing.of_one_size})
    once = [f"{name}: measured at one size only, taken as so much a row" for name in single]
    assumed = [*notes, *run.assumed(), *once, *run.lacking]
    return Rehearsal(expected["input"], workers, gpus, expected, steps, questions, total, measured, beyond, assumed)


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
    lacking: list[str] = field(default_factory=list)

    def steps(self) -> Iterator[Part]:
        """Yield plan and work of each step of every stage, and the manifests, in the order of a run."""
        known = {(thing.kind, thing.name): thing for thing in self.costs.measured}
        for stage in STAGES:
            if stage == "caption" and not any(tier.caption for tier in self.recipe.tier.values()):
                continue
            for step in stage_steps(self.recipe, stage, Runtime()):
                if step.name == "t5" and self.recipe.pretokenize.t5 != "precomputed":
                    continue
                if plan := known.get(("plan", step.name)):
                    yield self.part(plan, "driver")
                work = known.get(("work", step.name))
                if step.name in WHERE:
                    yield self._assumed(step.name)
                elif work:
                    yield self.part(work, "workers" if step.beam else "driver")
                else:
                    self.lacking.append(f"{step.name}: left out, no cost of it was measured; {self.costs.path}")
            if manifest := known.get(("manifest", stage)):
                yield self.part(manifest, "driver")

    def part(self, thing: Measured, where: str) -> Part:
        """Return what a measured thing takes."""
        rows = self.expected[thing.follows] * self._ratio(thing)
        units = self._units(thing, rows)
        figures = {name: law.at(rows, units) for name, law in thing.laws.items()}
        faster = self.costs.speedups.get((thing.kind, thing.name), 2.0 if where == "workers" else 1.0)
        seconds = figures["wall_s"]
        if where == "workers":  # units alone: each further worker is used as the second one is
            lanes = max(1.0, min(self.workers, units))
            seconds /= 1 + (lanes - 1) * (faster - 1)
        elif faster >= SEVERAL:  # the driver hands a part of it to workers (Amdahl's law)
            where, apart = "driver and workers", 2 * (1 - 1 / faster)
            seconds *= 1 - apart + apart / self.workers
        law: Law = thing.laws["cpu_s"]
        return Part(
            thing.kind,
            thing.name,
            where,
            round(rows),
            ceil(round(units, 6)),
            round(figures["cpu_s"], 1),
            round(seconds / 3600, 4),
            round(figures["peak_mib"], 1),
            round(figures["read"]),
            round(figures["written"]),
            round(figures["spilled"]),
            round(figures["files"]),
            steeper=law.shape,
            error=round(law.error, 3),
        )

    def _ratio(self, thing: Measured) -> float:
        """Return the rows of a thing over those of the place that they follow."""
        last = max(thing.points, key=lambda one: float(one["rows"]))
        return float(last["rows"]) / (last["counts"][thing.follows] or 1)

    def _units(self, thing: Measured, rows: float) -> float:
        """Return the units of a thing: as the recipe cuts its shards, else as in what was measured."""
        size = {
            "select": self.recipe.input.unit_rows,
            "fetch": self.recipe.fetch.shard_rows,
            "score": self.recipe.fetch.shard_rows,
            "pack": self.recipe.pretokenize.shard_rows,
        }.get(thing.name)
        return rows / size if size and thing.kind != "question" else thing.units(rows)

    def _assumed(self, name: str) -> Part:
        """Return what the network and models take: nothing of it is measured here."""
        tiers = self.recipe.tier
        sides = [tier.size for tier in tiers.values()]
        rows = {"fetch": self.expected["planned"], "score": self.expected["fetched"]}.get(name, self.expected["packed"])
        if name == "caption":
            rows = round(rows * sum(bool(tier.caption) for tier in tiers.values()) / max(len(tiers), 1))
        area = max(sides, default=256) ** 2 / 256**2
        on_gpu = self.gpus > 0 and name in GFLOP
        work = GFLOP.get(name, 0.0) * (area if name == "encode" else 1.0)
        rate = self.gpus * GPU_TFLOPS * 1000 / work if on_gpu else self.workers * CORE[name]
        if on_gpu and name in ("score", "encode"):
            rate = min(rate, self.workers * DECODE)
        units = ceil(rows / self.recipe.fetch.shard_rows)
        size = {
            "fetch": self.expected["fetched"] / max(rows, 1) * self.recipe.store_side**2 * 1.4 * BYTES_PER_PIXEL + 300,
            "score": 80.0,
            "caption": 400.0,
            "encode": 100 + 2 * area * 256,
            "t5": 2.0 * TOKENS * T5_WIDTH,
        }[name]
        return Part(
            "work",
            name,
            "network" if name == "fetch" else "gpus" if on_gpu else "cores",
            rows,
            units,
            0.0,
            round(rows / rate / 3600, 4),
            0.0,
            0,
            round(rows * size),
            0,
            units * (4 if name == "fetch" else 1),
            requests=round(rows * REQUESTS) if name == "fetch" else 0,
        )

    def assumed(self) -> list[str]:
        """Return what was taken for granted."""
        cores = self.costs.machine.get("cores", "?")
        told = [
            f"each worker is a core as fast as one of this machine's {cores}; one disk serves all as it did one",
            "rows are spread over files and clusters as in the measured runs; a step's laws go on beyond the largest",
            "memory that was the same within 15 % in the two largest runs stays so; all else grows as it did",
            f"fetch: {CORE['fetch']:g} rows/s a worker, {REQUESTS:g} requests a row; no site or network is slower",
            f"pictures of {self.recipe.store_side} px at {BYTES_PER_PIXEL} bytes a pixel",
            "memory of fetch and of steps with a model: not measured here; it depends on shards and batches, not rows",
        ]
        if self.gpus:
            told.append(
                f"a GPU does {GPU_TFLOPS:g} TFLOP/s of useful work; a row takes "
                + ", ".join(f"{name} {work:,.0f} GFLOP" for name, work in GFLOP.items())
                + f"; a core decodes {DECODE:g} pictures/s for it"
            )
        else:
            told.append(
                "no GPU: rows/s of a worker: "
                + ", ".join(f"{name} {rate:g}" for name, rate in CORE.items() if name != "fetch")
            )
        return told


def plain(made: Rehearsal) -> dict[str, Any]:
    """Return the rehearsal for JSON."""
    return asdict(made)


def lines(made: Rehearsal) -> Iterator[str]:
    """Yield the printed rehearsal."""
    yield f"rehearsal: {made.rows:,} rows, {made.workers} workers, {made.gpus} GPUs"
    yield "  " + ", ".join(f"{place} {count:,}" for place, count in made.expected.items() if place != "input")
    yield (
        "\n  step                          rows     shards       CPU h       hours   peak MiB      written"
        "      spilled      files  where"
    )
    for part in made.steps:
        yield _line(part)
    total = made.total
    yield (
        f"  {'in all':<21}{'':>13}{'':>11}{total['cpu_s'] / 3600:>12,.2f}{total['hours']:>12,.2f}"
        f"{total['peak_mib']:>11,.0f}{_size(total['written']):>13}{_size(total['spilled']):>13}{total['files']:>11,.0f}"
    )
    yield f"  requests to sites: {total['requests']:,.0f}; read from files: {_size(total['read'])}"
    if made.questions:
        yield "\n  questions to that run"
        yield from (_line(part) for part in made.questions)
    sizes = ", ".join(f"{rows:,}" for rows in made.measured["rows"])
    yield f"\n  costs: {made.measured['file']}, runs of {sizes} rows; this run is {made.beyond:g} x the largest"
    yield from (f"  assumed: {text}" for text in made.assumed)


def _line(part: Part) -> str:
    steep = {"": "", "near": " (compares hashes)", "square": " (grows with the square)"}[part.steeper]
    name = f"{part.kind} {part.name}" if part.kind in ("plan", "manifest") else part.name
    known = part.where not in ("network", "gpus", "cores")
    cpu = f"{part.cpu_s / 3600:>12,.2f}" if known else f"{'?':>12}"
    memory = f"{part.peak_mib:>11,.0f}" if known else f"{'?':>11}"
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
