"""pipeline/maintenance/remove/redact_run.py: rows go out of leftovers, logs and plans too, and out of a run that is not
at its end."""

import json
import os
import re
import shutil

import pyarrow.parquet as pq
import pytest

from manifests.files import FormatError
from manifests.tombstones import TOMBSTONES
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Runtime
from pipeline.maintenance.remove.redact_run import UnsearchableFileError
from pipeline.maintenance.remove.run import remove_rows
from pipeline.maintenance.remove.selectors import selector
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.stages.run import StageOptions, run_stage
from pipeline.steps.fetch.step import Fetch
from tests.support.keep_runs import without_beam
from tests.support.removals import URL, contents, holding, remove, uid, whole
from tests.support.small_web import write_input, write_recipe


def test_leftovers_and_logs_are_scrubbed(run):
    """What was set aside, what dead attempts left, logs: nothing of it has a record that names it."""
    (run / ".earlier" / "score").mkdir(parents=True)
    os.link(run / "scores" / "00000.parquet", run / ".earlier" / "score" / "abc-scores.parquet")
    shutil.copy(run / "scores" / "00000.parquet", run / "scores" / "00077.parquet")
    shutil.copy(run / "pairs" / "00000.tar", run / "pairs" / "00077.tar")
    (run / "logs" / "fetch").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"uid": uid(n).hex(), "detail": "?"}) + "\n" for n in (4, 5)] + [f"asked {URL.format(5)}\n"]
    (run / "logs" / "fetch" / "00000.jsonl").write_text("".join(lines))
    (run / "report.html").write_text("<img>")
    done = remove(run, url=URL.format(5))
    assert (run / "logs" / "fetch" / "00000.jsonl").read_text() == lines[0]
    assert not (run / "report.html").exists()
    assert {re.sub(r"\d+", "N", name) for name in holding(run, [uid(5)], [URL.format(5)])} == {
        "ledger/final/N.parquet",
        TOMBSTONES,
    }
    assert pq.read_table(run / ".earlier" / "score" / "abc-scores.parquet").num_rows == 7
    assert (done.counts["logs"], done.counts["scores"], done.counts["pairs"], done.counts["earlier"]) == (2, 1, 1, 1)


def test_a_leftover_that_cannot_be_searched_stops_the_removal(run):
    (run / "pairs" / "00077.tar").write_bytes(b"x" * 1024)
    before = contents(run)
    says = rf"{run}/pairs/00077.tar: no record names it, and it cannot be searched \(.*\); move it away"
    with pytest.raises(UnsearchableFileError, match=says):
        remove(run, url=URL.format(5))
    assert contents(run) == before


def test_a_recorded_table_that_cannot_be_parsed_is_named_where_it_lies_in_the_run(run):
    path = run / "ledger" / "fetch" / "00000.parquet"
    path.write_bytes(b"?" * path.stat().st_size)  # of the recorded size, which is all that is looked at before
    before = contents(run)
    with pytest.raises(FormatError, match=f"{path}: not a Parquet table that can be read"):
        remove(run, url=URL.format(5))
    assert contents(run) == before


def test_lines_that_name_a_removed_host_go_too(run):
    (run / "logs" / "workers").mkdir(parents=True, exist_ok=True)
    lines = ["cdn.gone.test: resting\n", "gone.test.example: resting\n", "notgone.test: resting\n"]
    (run / "logs" / "workers" / "fetch-0.log").write_text("".join(lines))
    assert remove(run, host="gone.test", url=URL.format(5)).counts["logs"] == 1
    assert (run / "logs" / "workers" / "fetch-0.log").read_text() == "".join(lines[1:])


def test_who_survives_must_have_been_decided_with_the_runs_own_recipe(run):
    """A near duplicate that another radius would let in is not decided on by a removal."""
    before = contents(run)
    other = recipe_of_run(run, sets=["dedup.radius=8"])
    with pytest.raises(RecipeError, match=r"dedup ran with other settings than recipe\.toml's; end that first"):
        remove_rows(run, other, Runtime(), [selector("url", URL.format(5))])
    assert contents(run) == before


def test_a_plan_of_which_nothing_was_done_yet_is_cut_too(tmp_path, web):
    recipe = load_recipe(write_recipe(tmp_path / "recipe.toml", web, write_input(tmp_path / "in"), tmp_path / "run"))
    with without_beam():
        run_stage(recipe, "filter", StageOptions(steps=("select",)))
    Fetch(recipe, tmp_path / "run").units()
    remove(tmp_path / "run", url=URL.format(5))
    assert holding(tmp_path / "run", [uid(5)], [URL.format(5)]) == {TOMBSTONES}
    assert whole(tmp_path / "run") == []
