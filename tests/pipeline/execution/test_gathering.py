"""pipeline/execution/gathering.py: how often a journal is looked at. What is taken from it: test_supervisor.py."""

from pipeline.execution.gathering import Gathering
from pipeline.execution.in_flight import InFlight
from pipeline.execution.progress import Progress
from tests.support import steps
from tests.support.supervised import RECIPE


def test_a_long_journal_is_listed_less_often_than_a_short_one(tmp_path, monkeypatch):
    gathering = Gathering(steps.Counting(RECIPE, tmp_path), Progress("counting", 6))
    clock, looks, costs = [100.0], [], [0.0]

    def look(pending):
        looks.append(clock[0])
        clock[0] += costs[0]

    monkeypatch.setattr(gathering, "_look", look)
    monkeypatch.setattr("pipeline.execution.gathering.time.monotonic", lambda: clock[0])
    for cost, expected in ((0.0005, 40), (0.042, 1)):  # of 40 turns in 2 s: ten records, and 60,000
        costs[0] = cost
        looks.clear()
        for _ in range(40):
            gathering.collect({}, now=False)
            clock[0] += 0.05
        assert len(looks) == expected
    gathering.collect({})
    assert len(looks) == 2  # a worker that ended is looked for at once


def test_a_record_of_the_planned_key_is_taken_and_no_other(tmp_path):
    step = steps.Counting(RECIPE, tmp_path)
    units = step.units()
    worker = step.open()
    step.journal.record(worker.run(units[0], InFlight()))
    step.journal.record(worker.run(steps.Unit("00001", units[1].reads, "1", "another key"), InFlight()))
    pending = {unit.name: unit for unit in units}
    progress = Progress("counting", 6)
    gathering = Gathering(step, progress)
    assert gathering.last == 0
    gathering.collect(pending)
    assert sorted(pending) == ["00001", "00002", "00003", "00004", "00005"]
    assert (progress.done, progress.rows, gathering.last > 0) == (1, 10, True)
