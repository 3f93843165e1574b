"""pipeline/execution/unit_marks.py: rows in hand of a worker that nobody of ours sees end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from captioning.captioner import CaptionerError
from manifests.files import write_bytes
from manifests.publishing import RUN_TOKEN, RunOver
from manifests.store import path_of
from pipeline.execution.in_flight import Part
from pipeline.execution.process_identity import Process, machine, this_process
from pipeline.execution.run_folder import locked
from pipeline.execution.run_token import current_token, new_token
from pipeline.execution.unit_marks import (
    SILENT_S,
    STALLED,
    Mark,
    MarkedUnit,
    Place,
    can_blame,
    charged,
    clear_marks,
    in_hand,
    last_sign_of,
    marks_folder,
    marks_of,
)
from pipeline.execution.worker import RunUnit
from tests.support import steps
from tests.support.supervised import RECIPE

ROWS = [bytes([n]) * 16 for n in range(5)]
NAMES = [row.hex() for row in ROWS]
WORKER = """
import os, sys, traceback
from pathlib import Path
from pipeline.execution import unit_marks
from pipeline.execution.worker import RunUnit, end_orderly
from tests.support import steps
from tests.support.supervised import RECIPE
unit_marks.BEAT_S = 0.1
step = getattr(steps, sys.argv[1])(RECIPE, Path(sys.argv[2]))
fn, codes = RunUnit(step, "", {}, sys.argv[3], float(sys.argv[4])), []

def work():
    end_orderly()
    fn.setup()
    for unit in step.units():
        list(fn.process(unit))

def attempt():
    try:
        work()
        os._exit(0)
    finally:
        traceback.print_exc()
        os._exit(1)

if sys.argv[5] == "once":
    work()
while not codes or (codes[-1] != 0 and len(codes) < 9):  # as an engine does, but that these are forks of one process
    pid = os.fork() or attempt()
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(*codes)
"""


@pytest.fixture
def place(tmp_path):
    with new_token(tmp_path) as token:
        yield Place(tmp_path, "score", token)


def ended():
    """Return a process of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    identity = Process(machine(), child.pid, 1)
    child.wait(60)
    return identity


ELSEWHERE = Process("another machine", os.getpid(), 1)


def left(place, unit="00000", rows=None, process=None, **how):
    """Leave the mark of an attempt that did not come to its end."""
    values = {"changed": time.time(), "beat": time.time(), **how}
    mark = Mark(unit, place.token, process or ended(), rows if rows is None else tuple(rows), **values)
    folder = marks_folder(place.root, place.step)
    write_bytes(folder / f"{unit}.{len(list(folder.glob('*')))}.json", json.dumps(asdict(mark)).encode())
    return mark


def counts(place, unit="00000"):
    return MarkedUnit(place, unit).crash_counts


def test_the_first_attempt_notes_no_rows_and_leaves_nothing_behind(place):
    with MarkedUnit(place, "00000") as marked, marked.working_on("00000", ROWS[:2]):
        (mark,) = marks_of(place.root, "score")
        assert (mark.unit, mark.rows, mark.process, mark.dead) == ("00000", None, this_process(), False)
    assert (marks_of(place.root, "score"), counts(place)) == ([], {})


def test_after_a_death_each_batch_is_noted(place):
    left(place)
    with MarkedUnit(place, "00000") as marked:
        with marked.working_on("00000", ROWS[:2]):
            assert in_hand(place.root, "score") == {"00000": NAMES[:2]}
        assert in_hand(place.root, "score") == {"00000": []}
    with MarkedUnit(place, "00001") as other, other.working_on("00001", ROWS[:2]):
        assert other.noted is False  # nothing died there


@pytest.mark.parametrize(
    ("deaths", "poisoned", "alone"),
    [
        ([None, None, None, None], [], []),  # nobody knows with which row
        ([None, [0, 1, 2]], [], [0, 1, 2]),
        ([[0, 1], [0, 1], [0, 1], [0, 1]], [], [0, 1]),  # never alone: either may be innocent
        ([[0, 1], [0], [0]], [0], [0, 1]),
        ([[0], [0]], [], [0]),
        ([[]] * 4, [], []),
    ],
)
def test_three_deaths_the_last_alone_poison_a_row(place, deaths, poisoned, alone):
    for rows in deaths:
        left(place, rows=rows if rows is None else [NAMES[n] for n in rows])
    marked = MarkedUnit(place, "00000")
    assert [n for n, row in enumerate(ROWS) if marked.is_poisoned(row)] == poisoned
    assert [n for n, row in enumerate(ROWS) if marked.alone(row)] == alone


@pytest.mark.parametrize(
    ("process", "how", "dead"),
    [
        (this_process(), {}, False),
        (this_process(), {"beat": 0.0}, False),  # it lives, and hangs: the stall limit's business
        (this_process(), {"failed": "RuntimeError: x"}, True),
        (replace(this_process(), started=this_process().started + 1), {}, True),  # its number is another's by now
        (ELSEWHERE, {}, False),
        (ELSEWHERE, {"silent": SILENT_S - 30}, False),
        (ELSEWHERE, {"beat": 0.0}, True),
    ],
)
def test_only_attempts_that_have_ended_are_charged(place, process, how, dead):
    if "silent" in how:  # the suite may have begun long ago
        how = {"beat": time.time() - how["silent"]}
    mark = left(place, rows=NAMES[:1], process=process, **how)
    assert mark.dead is dead
    assert counts(place) == ({NAMES[0]: 1} if dead else {})


def test_attempts_of_one_unit_that_are_alive_at_once_charge_each_other_with_nothing(place):
    """As while Flink restarts: each looks at the other's mark, at every moment, and both go on."""
    left(place, rows=NAMES[:1])
    both, seen = threading.Barrier(2), []

    def work():
        with MarkedUnit(place, "00000") as marked:
            for _ in range(20):
                with marked.working_on("00000", ROWS[1:3]):
                    both.wait(60)
                    seen.append(counts(place))
                    both.wait(60)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert seen == [{NAMES[0]: 1}] * 40  # a death is one, however many look
    assert counts(place) == {NAMES[0]: 1}


def test_what_a_worker_raises_is_known_to_the_row_at_once_and_what_is_no_rows_fault_to_none(place):
    for error in (RuntimeError("a decoder fell over"), OSError(28, "No space left on device"), RunOver("over")):
        with pytest.raises(type(error)), MarkedUnit(place, "00000") as marked, marked.working_on("00000", ROWS[:2]):
            raise error
    (mark,) = marks_of(place.root, "score")
    assert (mark.rows, mark.failed) == (tuple(NAMES[:2]), "RuntimeError: a decoder fell over")
    assert counts(place) == dict.fromkeys(NAMES[:2], 1)


def test_marks_of_another_run_count_for_nothing_and_an_orphan_leaves_none(place):
    left(replace(place, token="an earlier one"), rows=NAMES[:1])
    assert (marks_of(place.root, "score"), counts(place)) == ([], {})
    with MarkedUnit(place, "00001") as marked:
        write_bytes(place.root / "elsewhere", b"")
        (place.root / RUN_TOKEN).write_bytes(b"the next one")
        with pytest.raises(RunOver):
            MarkedUnit(place, "00002").__enter__()
        with pytest.raises(RunOver):
            marked._say()
    assert [path.name.partition(".")[0] for path in sorted(marks_folder(place.root, "score").iterdir())] == [
        "00000",
        "00001",  # the next run clears it: this one touches nothing of it
    ]


def test_an_orphan_stops_at_its_next_rows(place, monkeypatch):
    monkeypatch.setattr("pipeline.execution.unit_marks.BEAT_S", 0.02)

    def work():
        end = time.monotonic() + 60
        with MarkedUnit(place, "00000") as marked:
            (place.root / RUN_TOKEN).write_bytes(b"the next one")
            while time.monotonic() < end:
                with marked.working_on("00000", ROWS[:1]):
                    time.sleep(0.01)

    with pytest.raises(RunOver):
        work()


def test_the_driver_sees_signs_of_life_and_clears_all(place):
    assert (last_sign_of(place.root, "score"), can_blame(place.root, "score")) == (0.0, False)
    before = time.time()
    with MarkedUnit(place, "00003") as marked:
        marked.tell(Part("00003", 5, 10, (("a.test", 2, 1.5),), 0))
        marked._say()
        assert before <= last_sign_of(place.root, "score") <= time.time()
        (mark,) = marks_of(place.root, "score")
        assert mark.part == Part("00003", 5, 10, (("a.test", 2, 1.5),), 0)
        assert can_blame(place.root, "score") is False
    left(place)
    assert can_blame(place.root, "score") is True
    for _ in range(3):
        left(place, rows=[])  # each batch was noted, and none was in hand
    assert can_blame(place.root, "score") is False
    clear_marks(place.root, "score")
    clear_marks(place.root, "score")
    assert not marks_folder(place.root, "score").exists()


def test_a_mark_that_is_damaged_is_none(place):
    left(place, rows=NAMES[:1])
    (path,) = marks_folder(place.root, "score").iterdir()
    for data in (b"", b"{", b"[]", b'{"unit": 1}', path.read_bytes()[:-9]):
        path.write_bytes(data)
        assert (Mark.read(path), marks_of(place.root, "score"), counts(place)) == (None, [], {})


def test_marks_lie_in_a_store_as_well():
    root = path_of("memory://marks/run")
    with new_token(root) as token:
        place = Place(root, "score", token)
        left(place)
        with MarkedUnit(place, "00000") as marked, marked.working_on("00000", ROWS[:2]):
            assert in_hand(root, "score") == {"00000": NAMES[:2]}
        assert (in_hand(root, "score"), can_blame(root, "score")) == ({"00000": []}, True)
        clear_marks(root, "score")
        assert marks_of(root, "score") == []


def test_what_is_charged_is_counted_by_row():
    assert charged([]) == {}


def worker(kind, root, stall_s, how):
    """Return the command of a process that does what is left of a step's units, once or until it ends well."""
    return [sys.executable, "-c", WORKER, kind, str(root), current_token(root), str(stall_s), how]


@pytest.mark.parametrize(
    ("kind", "stall_s", "deaths"),
    [
        ("Killed", 0.0, [-signal.SIGKILL] * 4),  # unseen, in a batch, alone, alone
        ("Raising", 0.0, [1] * 3),
        ("Hanging", 1.0, [STALLED] * 3),
        ("KilledOnce", 0.0, [-signal.SIGKILL]),
    ],
)
def test_a_row_that_kills_is_dropped_alone(tmp_path, kind, stall_s, deaths):
    """Row 23 of 60, whose worker an engine starts again and again."""
    with locked(tmp_path):
        ended = subprocess.run(worker(kind, tmp_path, stall_s, "again"), timeout=300, capture_output=True, text=True)
    assert ended.stdout.split() == [str(int(code)) for code in (*deaths, 0)], ended.stderr[-2000:]
    records = getattr(steps, kind)(RECIPE, tmp_path).journal.records()
    lost = {name: record.dropped for name, record in records.items() if record.dropped}
    assert lost == ({} if kind == "KilledOnce" else {"00002": {"worker_died": 1}})
    assert sum(record.rows_out for record in records.values()) == 60 - len(lost)


def test_a_process_that_is_asked_to_end_charges_nothing(tmp_path):
    with locked(tmp_path):
        child = subprocess.Popen(worker("Hanging", tmp_path, 0.0, "once"))
        try:
            end = time.monotonic() + 120
            while not any(mark.unit == "00002" for mark in marks_of(tmp_path, "counting")):
                assert time.monotonic() < end
                assert child.poll() is None
                time.sleep(0.02)
            child.send_signal(signal.SIGTERM)
            assert child.wait(60) == -signal.SIGTERM
        finally:
            child.kill()
            child.wait()
        assert marks_of(tmp_path, "counting") == []


def test_a_later_invocation_tries_the_row_again(tmp_path):
    """Within one the unit is done, also for the attempts that an engine makes of it once more."""
    with locked(tmp_path):
        step = steps.Counting(RECIPE, tmp_path)
        unit = step.units()[2]
        for _ in range(3):
            left(Place(tmp_path, "counting", current_token(tmp_path)), "00002", [(23).to_bytes(16, "big").hex()])
        fn = RunUnit(step, "", {}, current_token(tmp_path))
        list(fn.process(unit))
        assert step.journal.get("00002").dropped == {"worker_died": 1}
        clear_marks(tmp_path, "counting")
        list(fn.process(unit))
        assert step.journal.get("00002").dropped == {"worker_died": 1}
    assert step.journal.done("00002", unit.key) is None


def test_a_worker_that_goes_over_the_ends_of_units_has_one_at_a_time_on_an_engine(tmp_path, capsys):
    """Which units a slot has is the engine's business."""
    with locked(tmp_path):
        step = steps.Streaming(RECIPE, tmp_path)
        fn = RunUnit(step, "", {}, current_token(tmp_path))
        assert [name for unit in step.units()[:2] for name in fn.process(unit)] == ["00000", "00001"]
        assert marks_of(tmp_path, "counting") == []
    assert [step.journal.get(name).rows_out for name in ("00000", "00001")] == [10, 10]
    assert "before the end of" not in capsys.readouterr().out


def test_a_captioner_that_refuses_is_no_rows_fault(tmp_path):
    with locked(tmp_path):
        step = steps.Refusing(RECIPE, tmp_path)
        with pytest.raises(CaptionerError):
            list(RunUnit(step, "", {}, current_token(tmp_path)).process(step.units()[2]))
        assert marks_of(tmp_path, "counting") == []
