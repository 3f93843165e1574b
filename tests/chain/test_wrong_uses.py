"""Wrong uses end with code 2 and a clear error, without a traceback and before any work."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.commands import pipeline, pipeline_here, run_here
from tests.support.small_web import write_input, write_recipe

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--stage", "filtre"], "choices: filter, caption, pretokenize, all"),
        (["--stage", "filter", "--runner", "fink"], "choices: local, flink, spark, dataflow, portable"),
        (["--stage", "filter", "--step", "fetsch"], "choices: select, fetch, score, dedup, decide"),
        (["--stage", "filter", "--set", "fetch.deadline=1"], "deadline_s"),
        (["--stage", "filter", "--set", "input.files=nowhere/*.parquet"], "no file matches"),
        (["--stage", "filter", "--set", "fetch.user_agent=tessera"], "wanted a name and a contact"),
        (["--stage", "filter", "--set", "fetch.opt_outs=['noai', 'no']"], "wanted some of noai"),
        (["--stage", "filter", "--step", "decide"], "--step decide: select has not run"),
        (["--stage", "filter", "--step", ""], "names no step"),
        (["--stage", "filter", "--set", "input.files=foo://x"], "cannot be opened by fsspec: Protocol not known: foo"),
        (["--stage", "caption"], "filter has not run"),
        (["--stage", "pretokenize"], "first: pipeline run --stage filter"),
        (["--stage", "filter", "--recipe", "nowhere.toml"], "cannot read 'nowhere.toml'"),
        (["--stage", "filter", "--set", "pretokenize.precision=fp8"], "fp8"),
    ],
)
def test_wrong_uses_end_with_two_before_any_work(tmp_path, web, args, says):
    write_input(tmp_path / "in")
    recipe = write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "run")
    done = pipeline_here("run", *args, *([] if "--recipe" in args else ["--recipe", recipe]))
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert not (tmp_path / "run" / "ledger").exists()


def test_a_user_sees_one_line_and_no_traceback(tmp_path, web):
    recipe = write_recipe(tmp_path / "recipe.toml", web, write_input(tmp_path / "in"), tmp_path / "run")
    done = pipeline("run", "--stage", "filter", "--recipe", recipe, "--set", "fetch.deadline=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "deadline_s" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_without_urls(tmp_path, web):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"TEXT": ["a"], "LINK": ["b"]}), tmp_path / "in" / "a.parquet")
    recipe = write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "run")
    assert "has no column 'URL'" in run_here(recipe, "filter", code=2).stderr


def test_a_step_does_not_run_over_shards_that_are_not_done(tmp_path, web):
    """select and then decide, without fetch: rows that were never asked for became `exact_duplicate`."""
    write_input(tmp_path / "in")
    recipe = write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "run")
    run_here(recipe, "filter", "--step", "select")
    assert "fetch has not run" in run_here(recipe, "filter", "--step", "decide", code=2).stderr
    run_here(recipe, "filter")
    pq.write_table(
        pa.table({"URL": ["http://pictures.test/39.jpg"], "TEXT": ["one more picture"]}), tmp_path / "in" / "0.parquet"
    )
    done = run_here(recipe, "filter", "--step", "select,decide", code=2)
    assert "1 of 6 shards of fetch are not done; choose it too" in done.stderr
    assert "warning: some files lack HEIGHT (1 of" in done.stderr
