"""Make the rows of a unit in batches: rows of the same bytes are carried over, the rows in hand are noted for a death's
sake, and what no worker survived gets `worker_died`."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.execution.decode_pool import Decoders, Pair, Work
from pipeline.execution.in_flight import InFlight, Part, batches
from pipeline.steps.kept_pairs import Row

Rows = dict[bytes, Row]
"""uid -> row."""
Earlier = Mapping[tuple[bytes, bytes], Row]
"""(uid, sha256 of the bytes that the row was made from) -> row."""
Finish = Callable[[], Rows]
"""Waits for a batch that was begun, and returns its rows."""
Begin = Callable[[list[Pair], list[Any]], Finish]
"""Starts on a batch: its pairs, and what `WorkerLoop.work` made of each pair's bytes."""


@dataclass(frozen=True)
class Flight:
    """A batch that was begun and is not finished."""

    uids: tuple[bytes, ...] = ()
    finish: Finish = dict


@dataclass(frozen=True)
class WorkerLoop:
    """How a worker goes through the rows of one unit, named `unit`.

    `size`: rows per batch. `work`: what becomes of a row's bytes before its batch is begun, by `decoders` if any.
    `ahead`: a batch is begun before the one before it is finished, so that a GPU has the next one while its codes are
    taken; both are in hand meanwhile. `planned`: rows of the unit, for the driver's progress line; 0: nothing is told.
    """

    unit: str
    in_flight: InFlight
    size: int
    work: Work
    decoders: Decoders = field(default_factory=lambda: Decoders(0))
    ahead: bool = False
    planned: int = 0

    def run(self, pairs: Iterable[Pair], earlier: Earlier, begin: Begin) -> Rows:
        """Return uid -> row of all pairs but the poisoned ones, which `complete` fills in.

        Rows with which a worker died are in hand alone, after the others.
        """
        rows: Rows = {}
        flight = Flight()
        for batch, opening in self.decoders.ahead(self._batches(pairs, earlier, rows), self.work):
            uids = tuple(uid for uid, _ in batch)
            self._tell(rows)
            if not self.ahead or self.in_flight.alone(uids[0]):
                flight = self._landed(flight, rows)
                with self.in_flight.working_on(self.unit, uids):
                    rows.update(begin(batch, opening())())
                continue
            with self.in_flight.working_on(self.unit, (*flight.uids, *uids)):
                begun = Flight(uids, begin(batch, opening()))
                rows.update(flight.finish())
            flight = begun
        self._landed(flight, rows)
        self._tell(rows)
        return rows

    def _tell(self, rows: Rows) -> None:
        if self.planned:
            self.in_flight.tell(Part(self.unit, len(rows), self.planned))

    def _batches(self, pairs: Iterable[Pair], earlier: Earlier, rows: Rows) -> Iterator[list[Pair]]:
        for batch in batches(self._fresh(pairs, earlier, rows), self.size, self.in_flight):
            if alive := [pair for pair in batch if not self.in_flight.is_poisoned(pair[0])]:
                yield alive

    def _fresh(self, pairs: Iterable[Pair], earlier: Earlier, rows: Rows) -> Iterator[Pair]:
        """Pass on the pairs that have no earlier row of the same bytes; the others' rows are carried over."""
        for uid, data in pairs:
            before = earlier.get((uid, hashlib.sha256(data).digest())) if earlier else None
            if before is None:
                yield uid, data
            else:
                rows[uid] = before

    def _landed(self, flight: Flight, rows: Rows) -> Flight:
        """Finish a batch with its rows in hand, and return that none is on its way."""
        if flight.uids:
            with self.in_flight.working_on(self.unit, flight.uids):
                rows.update(flight.finish())
        return Flight()


def complete(planned: Iterable[Row], rows: Rows) -> list[Row]:
    """Return the planned rows in their order with what was made of them, `worker_died` where no worker survived one.

    What the plan says of a row counts before what was made of it: a row that was carried over may be of an older plan.
    """
    return [{**rows.get(row["uid"], {"reason": "worker_died"}), **row} for row in planned]
