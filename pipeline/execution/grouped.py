"""Run a shuffle on a cluster: the functions of its legs and of its end around Beam's GroupByKey, without slices on
disk."""

from collections.abc import Iterable, Iterator

import apache_beam as beam
import pyarrow as pa

from manifests.guard import Guard
from pipeline.execution.shuffle import Gathered, Leg, by_part
from pipeline.execution.step import Unit

Message = tuple[int, bytes]
"""A part, and rows on their way to it: an Arrow message without its schema."""


class Spread(beam.DoFn):  # type: ignore[misc]  # Beam has no types
    """Spread a unit of a leg: (its part, what the leg before sent there) -> messages to the parts of the next."""

    def __init__(self, leg: Leg, units: list[Unit]) -> None:
        self.leg, self.units = leg, dict(enumerate(units))

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Message]:
        """Yield a message for each part that a piece of the unit has rows for."""
        part, messages = element
        unit = self.units[part]
        for numbers, rows in self.leg.spread(unit, rows_of(messages, self.leg.after or type(self.leg))):
            for to, own in by_part(numbers, rows, unit.reads["parts"]):
                yield to, own.serialize().to_pybytes()


class Finish(beam.DoFn):  # type: ignore[misc]  # Beam has no types
    """Do a unit at the end of a shuffle and journal its record."""

    def __init__(self, step: Gathered, units: list[Unit]) -> None:
        self.step, self.units = step, {unit.reads["part"]: unit for unit in units}

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[str]:
        """Write the unit's files, unless it is one that was done before."""
        part, messages = element
        unit = self.units.get(part)
        if unit is not None:
            with Guard() as guard:
                self.step.journal.record(self.step.finish(unit, rows_of(messages, self.step.legs[-1])))
            if guard.error is not None:
                raise guard.error
            yield unit.name


def rows_of(messages: Iterable[bytes], leg: type[Leg]) -> pa.Table:
    """Return the rows of messages that a leg has sent; an empty one only says that the part is there."""
    batches = [pa.ipc.read_record_batch(pa.py_buffer(message), leg.carried) for message in messages if message]
    return pa.Table.from_batches(batches, leg.carried)


def shuffled(pipeline: beam.Pipeline, step: Gathered, units: list[Unit]) -> beam.PCollection:
    """Return the names of the units that a shuffle has done: these, in parts of `unit.reads["part"]`."""
    first, *others = step.before()
    planned = first.units()
    moved = (
        pipeline
        | "units" >> beam.Create([(number, ()) for number in range(len(planned))])
        | "one bundle each" >> beam.Reshuffle()
        | first.name >> beam.ParDo(Spread(first, planned))
    )
    for leg in others:
        own = leg.units()
        moved = _complete(pipeline, moved, leg.name, range(len(own))) | leg.name >> beam.ParDo(Spread(leg, own))
    parts = [unit.reads["part"] for unit in units]
    return _complete(pipeline, moved, step.name, parts) | step.name >> beam.ParDo(Finish(step, units))


def _complete(pipeline: beam.Pipeline, moved: beam.PCollection, name: str, parts: Iterable[int]) -> beam.PCollection:
    """Group messages by part; a part to which no row goes is there too."""
    empty = pipeline | f"parts of {name}" >> beam.Create([(part, b"") for part in parts])
    return (moved, empty) | f"to {name}" >> beam.Flatten() | f"by part of {name}" >> beam.GroupByKey()
