"""A run over a store that throttles, fails, stalls and cuts answers has the digest of one on a disk; one folder has one
run at a time."""

import random
import signal
import subprocess
import time

import pytest

from manifests.manifest import Manifest
from manifests.store import path_of
from pipeline.execution.lease import latest
from tests.support.commands import command, pipeline_with_workers, run_here, run_with_workers
from tests.support.object_store import Faults, object_store, reached
from tests.support.small_web import write_input, write_recipe

pytestmark = pytest.mark.slow
SHARE = 0.05
"""Of requests that go wrong."""


def faults(seed):
    kinds, drawn = ("500", "503", "503", "cut", "slow"), random.Random(seed)
    return Faults(lambda number, method, path: drawn.choice(kinds) if drawn.random() < SHARE else "")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, web):
    folder = tmp_path_factory.mktemp("faulty")
    return write_recipe(folder / "recipe.toml", web, write_input(folder / "in"), folder / "run")


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))


def digest(root):
    return Manifest.read(root / "manifests" / "filter.json").digest


def test_the_same_digest_whatever_the_store_does(recipe, tmp_path):
    run_here(recipe, "filter", "--out", tmp_path / "calm")
    with object_store(faults(3)) as store, reached(store):
        run_with_workers(recipe, "filter", "--out", store.url(), "--workers", "2")
        root, done = path_of(store.url()), {fault for _, _, fault in store.faults.done}
        store.faults.choose = lambda number, method, path: ""
        assert digest(root) == digest(tmp_path / "calm")
        assert {"500", "503", "cut", "slow"} <= done
        assert latest(root).released
        assert not [path for path in root.rglob("*") if ".tmp-" in path.name or path.name == ".run-token"]
        verified = pipeline_with_workers("verify", store.url())
        assert verified.exit_code == 0, verified.output


def test_the_second_run_hears_who_has_the_folder_and_a_killed_one_is_followed_at_once(recipe):
    with object_store() as store, reached(store):
        root = path_of(store.url())
        first = subprocess.Popen(
            command(
                "run", "--stage", "filter", "--recipe", recipe, "--out", store.url(), "--set", "fetch.deadline_s=9"
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + 120
            while latest(root) is None and time.monotonic() < end:
                time.sleep(0.01)
            first.send_signal(signal.SIGSTOP)
            refused = pipeline_with_workers("run", "--stage", "filter", "--recipe", recipe, "--out", store.url())
            assert refused.exit_code == 2, refused.output
            assert f"held by another run (process {first.pid} on " in refused.output
        finally:
            first.kill()
            first.wait()
        run_with_workers(recipe, "filter", "--out", store.url())
        assert latest(root).number == 2
