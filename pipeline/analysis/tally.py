"""Count verdicts shard by shard, and hold apart the few rows that shards do not settle by themselves."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from filters.survivors import Candidates, Evaluated
from filters.verdicts import EXACT, NEAR, PASSES, Numbers
from pipeline.analysis.replan import Groups, Plan, among

OPEN = -2
"""Code of a row whose fate nobody can say: it was never fetched."""
MOST_HELD = 1_000_000
"""Rows held apart from which on the answer says so."""
HELD_BYTES = 70
"""Memory of a row that is held apart."""


@dataclass
class Tally:
    """Rows by reason and by tier. `by_code`: rows by 2 + their code (see OPEN and PASSES)."""

    reasons: tuple[str, ...]
    names: tuple[str, ...]
    by_code: Numbers = field(init=False)
    by_tier: Numbers = field(init=False)

    def __post_init__(self) -> None:
        self.by_code = np.zeros(len(self.reasons) + 2, np.int64)
        self.by_tier = np.zeros(len(self.names), np.int64)

    def count(self, code: Numbers, passed: Numbers | None = None, sign: int = 1) -> None:
        """Add rows by their codes, and those that pass by the bits of their tiers; with `sign` -1 take them out."""
        self.by_code += sign * np.bincount(code.astype(np.int64) + 2, minlength=len(self.by_code))
        if passed is not None:
            bits = passed[code == PASSES]
            for place in range(len(self.names)):
                self.by_tier[place] += sign * int(((bits >> np.uint64(place)) & np.uint64(1)).sum())

    @property
    def kept(self) -> int:
        """Return the rows that pass."""
        return int(self.by_code[2 + PASSES])

    @property
    def dropped(self) -> dict[str, int]:
        """Return reason -> rows, without those of which there are none."""
        return {reason: int(n) for reason, n in zip(self.reasons, self.by_code[2:], strict=True) if n}

    @property
    def tiers(self) -> dict[str, int]:
        """Return tier -> rows that pass it."""
        return {name: int(n) for name, n in zip(self.names, self.by_tier, strict=True)}


@dataclass
class Late:
    """Rows whose fates hang on others: those with twins, and those that `wanted` names, ascending: whose uid another
    row has, or that leave or come in."""

    reasons: tuple[str, ...]
    wanted: Numbers
    row: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    code: Numbers = field(default_factory=lambda: np.empty(0, np.int16))
    passed: Numbers = field(default_factory=lambda: np.empty(0, np.uint64))
    _parts: list[tuple[Numbers, Numbers, Numbers]] = field(default_factory=list)
    _rivals: list[tuple[Numbers, Candidates]] = field(default_factory=list)

    @classmethod
    def of(cls, reasons: Sequence[str], plan: Plan, groups: Groups) -> "Late":
        """Take the rows that a plan speaks of."""
        named = (plan.stands.ravel(), plan.copies, plan.open, plan.other.ravel(), groups.leavers)
        return cls(tuple(reasons), np.unique(np.concatenate(named)))

    def find(self, rows: Numbers, code: Numbers, tally: Tally) -> None:
        """Take the wanted ones out of a shard's rows that were not decided, with the codes that they are counted
        under."""
        hit = among(rows, self.wanted)
        self._hold(rows[hit], code[hit], np.zeros(int(hit.sum()), np.uint64))
        tally.count(code[hit], sign=-1)

    def take(self, rows: Numbers, evaluated: Evaluated, base: Numbers | None, tally: Tally) -> None:
        """Count a batch of verdicts in the place of `base`, the codes that its rows are counted under, but for those
        that are held; without `base` its rows are held already, and get other verdicts."""
        verdicts = evaluated.verdicts
        self._rivals.append((rows[evaluated.rivals], evaluated.candidates))
        if base is None:
            self._hold(rows, verdicts.code, verdicts.tiers)
            return
        hit = among(rows, self.wanted)
        hit[evaluated.rivals] = True
        tally.count(base, sign=-1)
        tally.count(verdicts.code[~hit], verdicts.tiers[~hit])
        self._hold(rows[hit], verdicts.code[hit], verdicts.tiers[hit])

    def _hold(self, rows: Numbers, code: Numbers, passed: Numbers) -> None:
        if len(rows):
            self._parts.append((rows, code, passed))

    def settle(self) -> None:
        """Put the rows in order, the last verdict of each, and let the best of each cluster win."""
        if not self._parts:
            return
        row, code, passed = (np.concatenate(values) for values in zip(*self._parts, strict=True))
        order = np.argsort(row, kind="stable")
        last = order[np.append(row[order][1:] != row[order][:-1], True)]
        self.row, self.code, self.passed = row[last], code[last], passed[last]
        rivals = [(rows, candidates) for rows, candidates in self._rivals if len(rows)]
        if rivals:
            losers = Candidates.join([candidates for _, candidates in rivals]).losers()
            self.code[self._at(np.concatenate([rows for rows, _ in rivals])[losers])] = self.reasons.index(NEAR)
        self._parts, self._rivals = [], []

    def _at(self, rows: Numbers) -> Numbers:
        """Return the places of rows that are held."""
        return np.searchsorted(self.row, rows)

    def compose(self, plan: Plan, groups: Groups) -> Counter[str]:
        """Give rows of one uid the fate of the one that stands for them; count the rows that stay open, which nobody
        has judged, by their reason now."""
        settled = self.code.copy()
        settled[self._at(plan.copies)] = self.reasons.index(EXACT)
        stand, picture = self._at(plan.stands[:, 0]), self._at(plan.stands[:, 1])
        settled[stand] = self.code[picture]
        self.passed[stand] = self.passed[picture]
        settled[self._at(groups.leavers)] = groups.left_codes
        opened: Counter[str] = Counter()
        for place, count in zip(*np.unique(self.code[self._at(plan.open)], return_counts=True), strict=True):
            opened[self.reasons[place] if place >= 0 else "kept"] += int(count)
        settled[self._at(plan.open)] = OPEN
        self.code = settled
        return opened

    def note(self) -> list[str]:
        """Return what the answer says of its memory where it is much: it grows with these rows alone."""
        if len(self.row) < MOST_HELD:
            return []
        size = len(self.row) * HELD_BYTES / 1e9
        return [f"{len(self.row):,} rows with twins, copies and rows that change were held in memory: {size:.1f} GB"]
