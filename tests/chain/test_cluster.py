"""A stage on Flink, inside a job server that the run starts: the digest of a local run, and no Java left behind.

Skipped where there is no Java or no `make cluster-jars`. `make cluster-demo` is the whole form, on a real cluster.
"""

import json
import os
import shutil

import pytest

from deploy.chaos import below
from deploy.jars import is_fresh, job_server_jar
from manifests.files import read_json
from manifests.store import path_of
from pipeline.execution.backends import RunnerOptions
from pipeline.execution.java import close
from pipeline.execution.run_folder import recipe_of_run
from pipeline.stages.run import StageOptions, run_stage
from tests.support.object_store import object_store, put_run, reached

pytestmark = [
    pytest.mark.skipif(shutil.which("java") is None, reason="no Java"),
    pytest.mark.skipif(not is_fresh("flink"), reason="no build/cluster: make cluster-jars"),
]


def pretokenized(root, runner):
    """Pretokenize a run on a runner, and return the digest."""
    sets = ["pretokenize.shard_rows=5", f"runner.jar={json.dumps(str(job_server_jar('flink')))}"]
    recipe = recipe_of_run(root, sets=sets)
    run_stage(recipe, "pretokenize", StageOptions(RunnerOptions(runner, 2, config=recipe.runner)))
    return read_json(root / "manifests" / "pretokenize.json")["digest"]


def test_codes_made_on_flink_have_the_digest_of_a_local_run_on_a_disk_and_in_an_object_store(
    run, tmp_path, monkeypatch
):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    shutil.copytree(run, tmp_path / "alone")
    digests = [pretokenized(tmp_path / "alone", "local")]
    with object_store() as store, reached(store):
        root = put_run(run, path_of(store.url()))
        digests.append(pretokenized(root, "flink"))
        assert not [path for path in root.rglob("*") if ".tmp-" in path.name or path.name == ".run-token"]
    digests.append(pretokenized(run, "flink"))
    assert len(set(digests)) == 1, digests
    close()
    assert [words for words in below(os.getpid()).values() if words.startswith("java")] == []
