"""Progress lines grow on a disk at once, and in a store with each checkpoint."""

import json

import pytest

from manifests.store import is_remote
from pipeline.training.metrics import Metrics
from tests.support.stored_runs import memory_root


@pytest.fixture(params=["disk", "memory"])
def root(request, tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "run" if request.param == "disk" else memory_root()


def steps_of(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_lines_are_appended_and_those_of_later_steps_dropped(root):
    path = root / "train" / "pretrain" / "metrics.jsonl"
    metrics = Metrics(root, path.parent)
    assert metrics.path == path
    metrics.keep_until(0)
    metrics.publish()
    assert not path.exists()
    for step in (1, 2, 3):
        metrics.add({"step": step})
    assert path.exists() != is_remote(root)
    metrics.publish()
    assert steps_of(path) == [1, 2, 3]
    metrics.add({"step": 4})  # after the last checkpoint: a process that is killed now
    with_scraps = path.read_bytes() + b'{"step": "x"}\n{}\nnone\n\xff\n'
    path.unlink()
    path.write_bytes(with_scraps)
    again = Metrics(root, path.parent)
    again.keep_until(2)
    again.add({"step": 3})
    again.publish()
    assert steps_of(path) == [1, 2, 3]


def test_the_summary_by_hand(tmp_path):
    metrics = Metrics(tmp_path, tmp_path / "train" / "pretrain")
    assert metrics.summary() == []
    metrics.add({"step": 1, "loss": 6.0, "samples_per_s": 5.0, "loader_share": 0.5, "skipped": 0})
    metrics.add({"step": 2, "validation_loss": 4.0})
    metrics.add({"step": 3, "loss": None, "skipped": 2})  # no step since the last line was applied
    metrics.add({"step": 4, "loss": 3.0, "samples_per_s": 15.0, "loader_share": 0.1, "skipped": 2})
    metrics.add({"step": 4, "validation_loss": 4.5})
    assert metrics.summary() == [
        "in all: loss 6.000 at step 1, 3.000 at 4",
        "  validation 4.500 at the end, 4.000 at best (step 2)",
        "  15.0 samples/s (median), 30.0% of the time waiting for the loader, 2 steps skipped",
    ]
