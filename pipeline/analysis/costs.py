"""Read what benchmarks/bench_scale.py measured on this machine, and fit how each figure of a step grows with its
rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb, log2
from pathlib import Path
from typing import Any

import numpy as np

from filters.hamming import BITS, PAIR_NS, SORT_NS
from manifests.files import parsing
from pipeline.recipes.schema import RecipeError

NAME = "scale.json"
PLACES = (NAME, f"benchmarks/{NAME}")
"""Where a file of costs is looked for, below the current folder."""
HOW = (
    "python benchmarks/bench_scale.py --rows 1e6 3e6 --out scale.json measures them on this machine (about half an hour"
    " on two cores), then: --costs scale.json"
)
FIGURES = ("cpu_s", "wall_s", "peak_mib", "read", "written", "files", "spilled")
"""What is measured: seconds, MiB of the largest process, bytes, files, bytes."""
PLACES_OF_ROWS = ("input", "planned", "fetched", "kept", "packed")
"""Counts of a run that a step's rows may follow."""
CLOSE = 0.1
"""A law whose largest relative error is below this is taken; else a steeper one is tried."""
FLAT = 1.15
"""A peak that is at most this many times another is taken as the same."""
NEAR = ("dedup", "twins", "near", "pairs", "labels")
"""Steps that compare hashes: their work follows the cost model of filters/hamming.py."""
RADIUS = 6
"""Bits in which near duplicates may differ, for the shape of that work; the recipe's own hardly changes it."""


@dataclass(frozen=True)
class Law:
    """A figure of a step: fixed + per_row x rows + per_unit x units + steep x shape(rows).

    `shape`: "", "square" or "near" (comparing hashes); `error`: the largest relative error over what was measured.
    """

    fixed: float
    per_row: float
    per_unit: float = 0.0
    steep: float = 0.0
    shape: str = ""
    error: float = 0.0

    def at(self, rows: float, units: float = 0.0) -> float:
        """Return the figure for so many rows in so many units."""
        return self.fixed + self.per_row * rows + self.per_unit * units + self.steep * _shape(self.shape, rows)


def _shape(name: str, rows: float) -> float:
    return near_work(rows) if name == "near" else rows * rows if name else 0.0


def near_work(rows: float, radius: int = RADIUS) -> float:
    """Return nanoseconds of sorting and comparing so many random hashes with the best cut into bands (see
    filters/hamming.py: `choose_bands`)."""
    rows = max(rows, 2.0)
    best = rows * rows / 2 * PAIR_NS
    for k in range(1, 5):
        tables, bits = comb(radius + k, k), BITS * k / (radius + k)
        best = min(best, tables * (rows * log2(rows) * SORT_NS + rows * rows / 2 / 2**bits * PAIR_NS))
    return best


def fit(points: Sequence[tuple[float, float, float]], near: bool = False) -> Law:
    """Return the law of (rows, units, value) points, no term of it negative: the least relative error by least squares.

    Linear where that is close to every point; else with the work of comparing hashes (`near`), or a square. The units'
    term is told from the rows' only where shards of several sizes were measured.
    """
    values = np.array([value for *_, value in points], float)
    if not values.any():
        return Law(0.0, 0.0)
    if len(points) == 1:  # nothing tells what is fixed: all of it is counted to the rows
        return Law(0.0, values[0] / points[0][0]) if points[0][0] else Law(float(values[0]), 0.0)
    sizes = [rows / units for rows, units, _ in points if units]
    told_apart = len(points) > 2 and len(sizes) == len(points) and max(sizes) > 2 * min(sizes)
    laws = [_fitted(points, values, "", told_apart)]
    if len(points) > 2 and laws[0].error > CLOSE:
        laws += [_fitted(points, values, shape, told_apart) for shape in (["near"] if near else []) + ["square"]]
    return next((law for law in laws if law.error <= CLOSE), min(laws, key=lambda law: law.error))


def _fitted(points: Sequence[tuple[float, float, float]], values: Any, shape: str, units_too: bool) -> Law:
    from scipy.optimize import nnls

    columns = [[1.0, rows, units if units_too else 0.0, _shape(shape, rows)] for rows, units, _ in points]
    matrix = np.array(columns)
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    weight = 1 / np.maximum(np.abs(values), np.abs(values).max() * 1e-3)
    found, _ = nnls(matrix / scale * weight[:, None], values * weight)
    found = found / scale
    error = float(np.abs((matrix @ found - values) * weight).max())
    fixed, per_row, per_unit, steep = map(float, found)
    return Law(fixed, per_row, per_unit, steep, shape, error)


@dataclass(frozen=True)
class Measured:
    """One thing that was measured at several sizes: the plan or the work of a step, a manifest, a question."""

    kind: str
    name: str
    points: tuple[Mapping[str, Any], ...]

    @cached_property
    def laws(self) -> dict[str, Law]:
        """Return figure -> how it grows."""
        near = self.name in NEAR and self.kind == "work"
        found = {
            figure: fit([(one["rows"], one.get("units", 0), one[figure]) for one in self.points], near)
            for figure in FIGURES
        }
        return {**found, "peak_mib": self._flat() or found["peak_mib"]}

    def _flat(self) -> Law | None:
        """Return the law of a peak that is the same in the two largest runs, or known of one; None of one that
        grows."""
        last = sorted(self.points, key=lambda one: float(one["rows"]))[-2:]
        peaks = [float(one["peak_mib"]) for one in last]
        return Law(max(peaks), 0.0) if max(peaks) <= FLAT * min(peaks) else None

    @cached_property
    def follows(self) -> str:
        """Return the count of a run that this thing's rows are nearest to."""
        last = max(self.points, key=lambda one: float(one["rows"]))
        counts = last["counts"]
        return min(PLACES_OF_ROWS, key=lambda place: abs(counts[place] - last["rows"]))

    @property
    def largest(self) -> float:
        """Return the rows of the largest that was measured."""
        return max(float(one["rows"]) for one in self.points)

    @cached_property
    def _units(self) -> Law:
        return fit([(one["rows"], 0.0, one.get("units", 0)) for one in self.points if one["mode"] == "rows"])

    def units(self, rows: float) -> float:
        """Return the units that so many rows make, cut as in the measured runs."""
        return self._units.at(rows)

    @property
    def of_one_size(self) -> bool:
        """Tell whether nothing says how this grows."""
        return len({one["input"] for one in self.points}) < 2


@dataclass(frozen=True)
class Costs:
    """A file of costs: the machine, and what was measured with one worker and with two."""

    path: Path
    machine: Mapping[str, Any]
    measured: tuple[Measured, ...]
    speedups: Mapping[tuple[str, str], float]
    """(kind, name) -> how many times faster two workers are than one."""

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


def read_costs(path: Path) -> Costs:
    """Return what a file of costs holds. Raises FormatError for another file, RecipeError where it holds too little."""
    with parsing(path, "no file of costs"):
        held = json.loads(path.read_bytes())
        entries = [
            {"rows": one["input"], **one} for one in held["measured"] if not one.get("failed") and "counts" in one
        ]
        for one in entries:
            if not all(isinstance(one[key], int | float) for key in (*FIGURES, "rows", "input", "workers")):
                raise TypeError(f"{one['kind']} {one['name']}: a figure is no number")
            if not all(isinstance(one["counts"][place], int) for place in PLACES_OF_ROWS):
                raise TypeError("a count is no number")
        machine = dict(held["machine"])
        keys = ("kind", "name", "workers", "mode", "input")
        entries = list({tuple(one[key] for key in keys): one for one in entries}.values())  # the last of each counts
    things: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in entries:
        if one["workers"] == 1 and one["mode"] != "packing":
            things.setdefault((one["kind"], one["name"]), []).append(one)
    if len({one["input"] for one in entries if one["mode"] == "rows"}) < 2:
        raise RecipeError(f"plan: {path} holds runs of one size only, wanted two or more; {HOW}")
    measured = tuple(Measured(kind, name, tuple(points)) for (kind, name), points in things.items())
    return Costs(path, machine, measured, _speedups(entries))


def _speedups(entries: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Return (kind, name) -> how many times faster two workers were than one by the clock, 1 to 2, in the largest run
    that was measured with both."""
    found: dict[tuple[str, str], float] = {}
    for two in sorted((one for one in entries if one["workers"] == 2), key=lambda one: int(one["input"])):
        alone = [
            one
            for one in entries
            if one["workers"] == 1 and all(one[key] == two[key] for key in ("kind", "name", "input", "mode"))
        ]
        if alone and two["wall_s"]:
            found[two["kind"], two["name"]] = min(2.0, max(1.0, alone[0]["wall_s"] / two["wall_s"]))
    return found
