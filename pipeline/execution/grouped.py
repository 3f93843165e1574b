"""Run a shuffle on a cluster: the functions of its legs and of its end around Beam's GroupByKey, without slices on
disk."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import apache_beam as beam
import pyarrow as pa

from manifests.guard import Guard
from manifests.publishing import may_publish
from pipeline.execution.run_token import holding
from pipeline.execution.shuffle import Gathered, Leg
from pipeline.execution.slices import by_part, together
from pipeline.execution.step import Unit
from pipeline.execution.threads import bind_this_thread
from pipeline.execution.worker_signs import alive

Message = tuple[int, bytes]
"""Which of a unit's senders it is from, and rows on their way: an Arrow message without its schema; an empty one only
says that the unit is there."""


class Spread(beam.DoFn):  # type: ignore[misc]  # Beam has no types
    """Spread a unit of a leg: (its part, what the legs before sent there) -> (part, rows) for the next ones."""

    def __init__(self, leg: Leg, units: list[Unit], token: str = "", step: str = "") -> None:
        self.leg, self.units = replace(leg), dict(enumerate(units))  # without what planning has read
        self.token, self.step = token, step or leg.name

    def process(self, element: tuple[int, Iterable[Message]]) -> Iterator[tuple[int, bytes]]:
        """Yield a message for each part that the unit has rows for, some more where it has many."""
        part, messages = element
        if (unit := self.units.get(part)) is None:  # of others behind the same leg
            return
        with holding(self.leg.root, self.token):
            may_publish()
        bind_this_thread(self.leg.name)
        with alive(self.leg.root, self.step, self.token):
            pieces = self.leg.receive(unit, received(messages, self.leg.senders()))
            for numbers, rows in together(pieces, self.leg.carried, self.leg.held_bytes):
                for to, own in by_part(numbers, rows, unit.reads["parts"]):
                    yield to, own.serialize().to_pybytes()


class Finish(beam.DoFn):  # type: ignore[misc]  # Beam has no types
    """Do a unit at the end of a shuffle and journal its record."""

    def __init__(self, step: Gathered, units: list[Unit], token: str = "") -> None:
        self.step, self.units = replace(step), {unit.reads["part"]: unit for unit in units}
        self.token = token

    def process(self, element: tuple[int, Iterable[Message]]) -> Iterator[str]:
        """Write the unit's files, unless it is one that was done before."""
        part, messages = element
        unit = self.units.get(part)
        if unit is not None:
            root, name = self.step.root, self.step.name
            with Guard() as guard, holding(root, self.token), alive(root, name, self.token):
                may_publish()
                bind_this_thread(name)
                self.step.journal.record(self.step.receive(unit, received(messages, self.step.senders())))
            if guard.error is not None:
                raise guard.error
            yield unit.name


@dataclass(frozen=True)
class Received:
    """The rows of those messages that are from one sender, read anew each time."""

    messages: Iterable[Message]
    sender: int
    schema: pa.Schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for sender, message in self.messages:
            if sender == self.sender and message:
                yield pa.ipc.read_record_batch(pa.py_buffer(message), self.schema)


def received(messages: Iterable[Message], senders: Sequence[type[Leg]]) -> list[Received]:
    """Return what each of a unit's senders sent to it."""
    return [Received(messages, number, leg.carried) for number, leg in enumerate(senders)]


def shuffled(pipeline: beam.Pipeline, step: Gathered, units: list[Unit], token: str = "") -> beam.PCollection:
    """Return the names of the units that a shuffle has done: these, in parts of `unit.reads["part"]`. `token`: that of
    the run (see run_token.py)."""
    moved: dict[type[Leg], beam.PCollection] = {}
    for leg in step.before():
        planned = leg.units()
        if leg.senders():
            grouped = _grouped(pipeline, moved, leg, range(len(planned)))
        else:
            numbers = pipeline | f"units of {leg.name}" >> beam.Create([(part, ()) for part in range(len(planned))])
            grouped = numbers | f"one bundle each of {leg.name}" >> beam.Reshuffle()
        moved[type(leg)] = grouped | leg.name >> beam.ParDo(Spread(leg, planned, token, step.name))
    parts = [unit.reads["part"] for unit in units]
    return _grouped(pipeline, moved, step, parts) | step.name >> beam.ParDo(Finish(step, units, token))


def _grouped(
    pipeline: beam.Pipeline, moved: dict[type[Leg], beam.PCollection], to: Leg | Gathered, parts: Iterable[int]
) -> beam.PCollection:
    """Group what the senders have sent by part; a part to which no row goes is there too."""
    all_to_one = isinstance(to, Leg) and to.whole
    sent = [
        moved[leg] | f"{leg.name} to {to.name}" >> beam.Map(_message, number, all_to_one)
        for number, leg in enumerate(to.senders())
    ]
    empty = pipeline | f"parts of {to.name}" >> beam.Create([(part, (0, b"")) for part in parts])
    return (*sent, empty) | f"to {to.name}" >> beam.Flatten() | f"by part of {to.name}" >> beam.GroupByKey()


def _message(sent: tuple[int, bytes], sender: int, all_to_one: bool) -> tuple[int, Message]:
    part, rows = sent
    return 0 if all_to_one else part, (sender, rows)
