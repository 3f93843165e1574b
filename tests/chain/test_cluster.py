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
from pipeline.execution.backends import RunnerOptions
from pipeline.execution.java import close
from pipeline.execution.run_folder import recipe_of_run
from pipeline.stages.run import StageOptions, run_stage


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java")
@pytest.mark.skipif(not is_fresh("flink"), reason="no build/cluster: make cluster-jars")
def test_codes_made_on_flink_have_the_digest_of_a_local_run(run, tmp_path):
    shutil.copytree(run, tmp_path / "alone")
    digests = []
    for root, runner in ((tmp_path / "alone", "local"), (run, "flink")):
        sets = ["pretokenize.shard_rows=5", f"runner.jar={json.dumps(str(job_server_jar('flink')))}"]
        recipe = recipe_of_run(root, sets=sets)
        run_stage(recipe, "pretokenize", StageOptions(RunnerOptions(runner, 2, config=recipe.runner)))
        digests.append(read_json(root / "manifests" / "pretokenize.json")["digest"])
    assert digests[0] == digests[1]
    close()
    assert [words for words in below(os.getpid()).values() if words.startswith("java")] == []
