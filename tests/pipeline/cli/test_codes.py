"""pipeline/cli/codes.py: which folders an import refuses, and shards that `show` does not find."""

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.codes import check_folders
from pipeline.recipes.schema import RecipeError


def test_an_import_takes_one_kind_of_codes_from_folders_that_are_there(tmp_path):
    nowhere = tmp_path / "no"
    check_folders(tmp_path, tmp_path, None, None)
    check_folders(tmp_path, None, tmp_path, None)
    for folders, says in (
        ((tmp_path, None, None, None), "one of the two"),
        ((tmp_path, tmp_path, tmp_path, None), "one of the two"),
        ((tmp_path, None, tmp_path, tmp_path), "--t5 goes with --jsonl"),
        ((nowhere, tmp_path, None, None), "is not there, or no folder"),
        ((tmp_path, nowhere, None, None), "is not there, or no folder"),
        ((tmp_path, tmp_path, None, nowhere), "is not there, or no folder"),
    ):
        with pytest.raises(RecipeError, match=says):
            check_folders(*folders)


def test_a_shard_that_is_not_there_and_one_outside_of_a_run_end_with_2(tmp_path):
    done = CliRunner().invoke(app, ["show", "codes", str(tmp_path / "00000.tar")])
    assert (done.exit_code, "wanted RUN/codes/TIER/NUMBER.tar" in done.stderr) == (2, True)
    (tmp_path / "00000.tar").write_bytes(b"x")
    done = CliRunner().invoke(app, ["show", "codes", str(tmp_path / "00000.tar")])
    assert (done.exit_code, "give --vq NAME and --weights FILE" in done.stderr) == (2, True)
