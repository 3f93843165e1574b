"""A stage on Beam's portable runner, whose job service and workers are this machine's: the digest of a local run."""

import shutil

from manifests.files import read_json
from pipeline.execution.backends import RunnerOptions
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.shuffle import Derived
from pipeline.stages.run import StageOptions, run_stage
from pipeline.steps import moved

BEAM = ("--job_endpoint=embed", "--environment_type=LOOPBACK")


def test_rows_are_grouped_by_beam_on_their_way_to_packed_shards(run, tmp_path, monkeypatch, capsys):
    """21 samples in each of two tiers, 5 a shard, with no work left to the driver for being small."""
    shutil.copytree(run, tmp_path / "alone")
    monkeypatch.setattr(moved, "FEW_SHARDS", 0)
    digests = []
    for root, runner in ((tmp_path / "alone", "local"), (run, "portable")):
        options = StageOptions(RunnerOptions(runner, 1, BEAM if runner == "portable" else ()))
        run_stage(recipe_of_run(root, sets=["pretokenize.shard_rows=5"]), "pretokenize", options)
        digests.append(read_json(root / "manifests" / "pretokenize.json")["digest"])
        monkeypatch.setattr(Derived, "is_small", lambda step, pending: False)
    said = capsys.readouterr().err
    assert [name in said for name in ("pack_ordered", "packed_rows", "moved_codes")] == [True, True, False]
    assert digests[0] == digests[1]
    assert not (run / ".shuffle").exists()
