"""Read what benchmarks/bench_scale.py measured on this machine: what each step and question takes as rows grow."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from manifests.files import parsing
from pipeline.analysis.laws import Law, Point, fit, flat
from pipeline.recipes.schema import RecipeError

NAME = "scale.json"
PLACES = (NAME, f"benchmarks/{NAME}")
"""Where a file of costs is looked for, below the current folder."""
HOW = (
    "python benchmarks/bench_scale.py --rows 1e6 3e6 --out scale.json measures them on this machine (about half an hour"
    " on two cores), then: --costs scale.json"
)
SLACK = {"cpu_s": 1.0, "wall_s": 1.0, "peak_mib": 25.0, "read": 25e6, "written": 25e6, "files": 10.0, "spilled": 25e6}
"""What is measured (seconds, MiB of the largest process, bytes, files), and what a figure may be off by chance."""
FIGURES = tuple(SLACK)
MOST = 1e18
"""What no figure reaches."""
PLACES_OF_ROWS = ("input", "planned", "fetched", "kept", "packed")
"""Counts of a run that a step's rows may follow."""
BENT = ("cpu_s", "read")
"""Figures that may grow with the square of the rows."""
NEAR = ("dedup",)
"""Steps that compare hashes: their work follows the cost model of filters/hamming.py."""
SHAPES = {"cpu_s": ("near",), "wall_s": ("near",), "read": ("tables",), "spilled": ("tables",)}
"""How that work shows: by hashes compared, by hashes written once for each table."""

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """One thing that was measured at several sizes: the plan or the work of a step, a manifest, a question.

    `points`: with one worker; `twice`: with two.
    """

    kind: str
    name: str
    points: tuple[Entry, ...]
    twice: tuple[Entry, ...] = ()

    @cached_property
    def plain(self) -> list[Entry]:
        """Return the runs of shards of the usual size, smallest first."""
        found = sorted((one for one in self.points if one["mode"] == "rows"), key=lambda one: float(one["rows"]))
        return found or sorted(self.points, key=lambda one: float(one["rows"]))

    @cached_property
    def alike(self) -> list[Entry]:
        """Return the runs that work as the largest does: by parts on disk, or at once in memory."""
        return [one for one in self.plain if (one["spilled"] > 0) == (self.plain[-1]["spilled"] > 0)]

    @property
    def lone(self) -> bool:
        """Tell whether only the largest of several runs worked by parts: how that grows is not known."""
        return len(self.plain) > len(self.alike) == 1 and self.plain[-1]["spilled"] > 0

    @cached_property
    def laws(self) -> dict[str, Law]:
        """Return figure -> how it grows."""
        crowded = [one for one in self.points if one["mode"] == "shards"] if self.plain[0]["mode"] == "rows" else []
        found: dict[str, Law] = {}
        for figure in FIGURES:
            some = self.alike if self.lone and figure == "spilled" else self._sizes
            points, small = _points(some, figure), _points(crowded, figure)
            level = flat(_points(self.plain, figure), self.lone, small) if figure == "peak_mib" else None
            # other jobs and the disk bend seconds by the clock: they outgrow rows where CPU seconds do
            bent = figure in BENT or (figure == "wall_s" and found["cpu_s"].shape == "square")
            found[figure] = level or fit(points, self._shapes(figure, bent), SLACK[figure], small)
        return found

    @property
    def _sizes(self) -> list[Entry]:
        return self.plain if len(self.alike) < 2 else self.alike

    def _shapes(self, figure: str, bent: bool = True) -> tuple[str, ...]:
        """Return the shapes to try; a square where that may be (`bent`)."""
        near = SHAPES.get(figure, ()) if self.name in NEAR and self.kind == "work" else ()
        return (*near, "", *(["square"] if bent else []))

    @cached_property
    def _laws_of_both(self) -> list[Law]:
        """Return how seconds grow with one worker and with two, in runs that have both; none of less than two runs."""
        sizes = {one["input"] for one in self._sizes} & {one["input"] for one in self.twice}
        shapes = self._shapes("wall_s", self.laws["cpu_s"].shape == "square")
        return [
            fit(_points([one for one in some if one["input"] in sizes], "wall_s"), shapes, SLACK["wall_s"])
            for some in ([self._sizes, self.twice] if len(sizes) > 1 else [])
        ]

    def seconds(self, rows: float, shards: float, workers: float, in_workers: bool) -> tuple[float, float]:
        """Return the seconds by the clock with so many workers, and the share of one worker's seconds that they divide.

        The rest is the driver's (Amdahl's law): told by the seconds with one worker and with two. Where two were not
        measured, all but what is fixed is theirs (`in_workers`), or nothing; a gain that may be chance counts as none.
        """
        law = self.laws["wall_s"]
        one = law.at(rows, shards)
        share = 1 - law.fixed / one if in_workers and one else 0.0
        if self.faster:
            share = 2 * (1 - 1 / self.faster)
        if self._laws_of_both:
            alone, together = (known.at(rows) for known in self._laws_of_both)
            share = 2 * (1 - together / alone) if alone else 0.0
        if not in_workers and self.faster and self._gain < SLACK["wall_s"]:
            share = 0.0
        share = min(1.0, max(0.0, share))
        return one * (1 - share + share / max(workers, 1.0)), share

    @cached_property
    def _both(self) -> tuple[float, float]:
        """Return the seconds with one worker and with two of the largest run that has both; zeros where none has."""
        for two in sorted(self.twice, key=lambda one: -float(one["input"])):
            alone = [one for one in self.points if one["input"] == two["input"] and one["mode"] == two["mode"]]
            if alone and two["wall_s"]:
                return float(alone[0]["wall_s"]), float(two["wall_s"])
        return 0.0, 0.0

    @property
    def faster(self) -> float:
        """Return how many times faster two workers were than one there, 1 to 2; 0 where that was not measured."""
        one, two = self._both
        return min(2.0, max(1.0, one / two)) if two else 0.0

    @property
    def _gain(self) -> float:
        """Return the seconds that the second worker saved there."""
        return self._both[0] - self._both[1]

    @cached_property
    def follows(self) -> str:
        """Return the count of a run that this thing's rows are nearest to."""
        last = self.plain[-1]
        return min(PLACES_OF_ROWS, key=lambda place: abs(last["counts"][place] - last["rows"]))

    @property
    def ratio(self) -> float:
        """Return the rows of this thing over those of the place that they follow."""
        last = self.plain[-1]
        return float(last["rows"]) / (last["counts"][self.follows] or 1)

    @cached_property
    def _units(self) -> Law:
        return fit([Point(one["rows"], 0.0, one.get("units", 0)) for one in self.plain])

    def units(self, rows: float) -> float:
        """Return the units that so many rows make, cut as in the measured runs."""
        return self._units.at(rows)

    @property
    def of_one_size(self) -> bool:
        """Tell whether nothing says how this grows."""
        return len({one["input"] for one in self.points}) < 2


def _points(entries: Sequence[Entry], figure: str) -> list[Point]:
    return [Point(float(one["rows"]), float(one.get("shards", 0)), float(one[figure])) for one in entries]


@dataclass(frozen=True)
class Costs:
    """A file of costs: the machine, what was measured, and rates that it was given by hand."""

    path: Path
    machine: Mapping[str, Any]
    measured: tuple[Measured, ...]
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """"worker" and "gpu": step -> rows/s of one of them."""

    @property
    def sizes(self) -> list[int]:
        """Return the rows of the runs that were measured."""
        return sorted({one["input"] for thing in self.measured for one in thing.points if one["mode"] == "rows"})

    def shares(self) -> dict[str, float]:
        """Return place -> rows there over those of the input, in the largest run that was measured."""
        last = max((one for thing in self.measured for one in thing.points), key=lambda one: int(one["input"]))
        return {place: last["counts"][place] / last["counts"]["input"] for place in PLACES_OF_ROWS}


def find_costs(given: str | None) -> Path:
    """Return the file of costs that was given, or the one that lies here. Raises RecipeError where there is none."""
    if given is not None:
        if not Path(given).is_file():
            raise RecipeError(f"plan: no file of costs {given!r}; {HOW}")
        return Path(given)
    for place in PLACES:
        if Path(place).is_file():
            return Path(place)
    raise RecipeError(f"plan: no file of costs here ({' or '.join(PLACES)}); {HOW}")


def read_costs(path: Path, most: float = float("inf")) -> Costs:
    """Return what a file of costs holds of runs of at most so many rows. Raises FormatError for another file,
    RecipeError where it holds too little."""
    with parsing(path, "no file of costs"):
        held = json.loads(path.read_bytes())
        entries = [one for one in _entries(held["measured"]) if one["input"] <= most]
        machine = dict(held["machine"])
        rates = {each: dict(known) for each, known in held.get("rates", {}).items()}
        if not all(0 < rate < MOST for known in rates.values() for rate in known.values()):
            raise ValueError("a rate is not above 0")
    if len({one["input"] for one in entries if one["mode"] == "rows"}) < 2:
        raise RecipeError(f"plan: {path} holds runs of one size only, wanted two or more; {HOW}")
    return Costs(path, machine, tuple(things_of(entries)), rates)


def _entries(measured: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return what can be used of it: of what was measured again the last. Raises TypeError, KeyError."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for given in measured:
        if given.get("failed") or "counts" not in given:
            continue
        one = {"rows": given["input"], **given}
        figures = [*(one[key] for key in (*FIGURES, "rows", "input")), one.get("units", 0)]
        if not all(isinstance(value, int | float) and 0 <= value < MOST for value in figures):
            raise TypeError(f"{one['kind']} {one['name']}: a figure is no number from 0 on")
        if not isinstance(one["workers"], int) or one["workers"] < 1:
            raise TypeError(f"{one['kind']} {one['name']}: its workers are no number from 1 on")
        if not all(isinstance(one["counts"][place], int) and one["counts"][place] >= 0 for place in PLACES_OF_ROWS):
            raise TypeError("a count is no number from 0 on")
        found[tuple(one[key] for key in ("kind", "name", "workers", "mode", "input"))] = one
    shards = {(one["mode"], one["input"]): one.get("units", 0) for one in found.values() if _plans_fetch(one)}
    return [{**one, "shards": shards.get((one["mode"], one["input"]), 0)} for one in found.values()]


def _plans_fetch(one: Entry) -> bool:
    return (one["kind"], one["name"], one["workers"]) == ("plan", "fetch", 1)


def things_of(entries: Sequence[Entry]) -> Iterator[Measured]:
    """Yield what was measured with one worker, each with what was with two."""
    for key in dict.fromkeys((one["kind"], one["name"]) for one in entries):
        own = [one for one in entries if (one["kind"], one["name"]) == key and one["mode"] != "packing"]
        points = tuple(one for one in own if one["workers"] == 1)
        if points:
            twice = tuple(one for one in own if one["workers"] == 2 and one["mode"] == "rows")
            yield Measured(*key, points, twice)
