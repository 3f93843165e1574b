"""Wrong uses end with code 2 and a clear error, without a traceback and before any work."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import write_input, write_recipe
from tests.test_chain import pipeline, run

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
        (["--stage", "caption"], "filter has not run"),
        (["--stage", "pretokenize"], "first: pipeline run --stage filter"),
        (["--stage", "filter", "--recipe", "nowhere.toml"], "cannot read 'nowhere.toml'"),
        (["--stage", "filter", "--set", "pretokenize.precision=fp8"], "fp8"),
    ],
)
def test_wrong_uses_end_with_two_before_any_work(tmp_path, web, args, says):
    write_input(tmp_path / "in")
    recipe = write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "run")
    done = pipeline("run", *args, *([] if "--recipe" in args else ["--recipe", recipe]))
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "ledger").exists()


def test_a_table_without_urls(tmp_path, web):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"TEXT": ["a"], "LINK": ["b"]}), tmp_path / "in" / "a.parquet")
    recipe = write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "run")
    assert "has no column 'URL'" in run(recipe, "filter", code=2).stderr
