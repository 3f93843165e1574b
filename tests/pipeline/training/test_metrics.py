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
