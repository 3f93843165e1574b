"""Hold what the laws of smaller runs foretell against a larger run that was measured: how far a rehearsal is off."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.analysis.costs import Measured, read_costs
from pipeline.recipes.schema import RecipeError

WITHIN = 0.25
"""How far a foretold figure may be from the measured one, as a share of it."""
FITTED = 10_000_000
"""Rows of the largest runs that laws are fitted to, at most."""
PASSED = {"cpu_s": 2.0, "wall_s": 2.0, "peak_mib": 50.0, "read": 50e6, "written": 50e6, "spilled": 50e6}
"""Figures that are held, and what each may be off whatever its share."""
WORDS = {
    "cpu_s": "CPU s",
    "wall_s": "s",
    "peak_mib": "MiB",
    "read": "MB read",
    "written": "MB written",
    "spilled": "MB spilled",
}


@dataclass(frozen=True)
class Held:
    """One figure of a larger run, foretold and measured. `close`: it is within WITHIN, or off by a trifle."""

    thing: str
    figure: str
    foretold: float
    measured: float

    @property
    def off(self) -> float:
        """Return how far it is off, as a share of what was measured."""
        return (self.foretold - self.measured) / self.measured if self.measured else 0.0

    @property
    def close(self) -> bool:
        """Tell whether it is near enough."""
        gap = abs(self.foretold - self.measured)
        return gap <= WITHIN * self.measured or gap <= PASSED[self.figure]


def hold(path: Path, rows: int) -> list[Held]:
    """Return every figure of the run of so many rows of the input, foretold by the smaller ones up to FITTED rows.

    Raises FormatError, and RecipeError where the run or two smaller ones were not measured.
    """
    costs = read_costs(path, min(FITTED, rows - 1))
    known = {(thing.kind, thing.name): thing for thing in costs.measured}
    found = [
        held
        for thing in read_costs(path).measured
        for one in (*thing.points, *thing.twice)
        if one["input"] == rows and one["mode"] == "rows" and (thing.kind, thing.name) in known
        for held in _of(known[thing.kind, thing.name], one)
    ]
    if not found:
        raise RecipeError(f"{path}: no run of {rows:,} rows; measured: {', '.join(f'{n:,}' for n in costs.sizes)}")
    return found


def _of(thing: Measured, one: Any) -> Iterator[Held]:
    rows, shards, workers = float(one["rows"]), float(one["shards"]), int(one["workers"])
    name = f"{thing.kind} {thing.name}" + (f", {workers} workers" if workers > 1 else "")
    for figure in PASSED if workers == 1 else ("wall_s",):
        told = thing.laws[figure].at(rows, shards)
        if workers > 1:
            told, _ = thing.seconds(rows, shards, workers, in_workers=True)
        yield Held(name, figure, told, float(one[figure]))


def lines(found: list[Held]) -> Iterator[str]:
    """Yield a line a thing: foretold / measured of each figure, and what is beyond; the last says how many are."""
    for thing in dict.fromkeys(held.thing for held in found):
        yield f"  {thing:<32}" + "; ".join(_figure(held) for held in found if held.thing == thing)
    beyond = sum(not held.close for held in found)
    trifles = ", ".join(f"{_scaled(figure, gap):,.0f} {WORDS[figure]}" for figure, gap in PASSED.items())
    yield (
        f"  {beyond} of {len(found)} figures are off by more than {WITHIN:.0%}; what is off by less than {trifles} is"
        " passed over"
    )


def _figure(held: Held) -> str:
    told, was = (_scaled(held.figure, value) for value in (held.foretold, held.measured))
    return f"{told:,.1f} / {was:,.1f} {WORDS[held.figure]}" + ("" if held.close else f" BEYOND ({held.off:+.0%})")


def _scaled(figure: str, value: float) -> float:
    return value / 1e6 if figure in ("read", "written", "spilled") else value
