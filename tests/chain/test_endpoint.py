"""The caption stage with an endpoint: planted faults are retried or counted, and a rerun asks for those alone."""

import re
from collections import Counter

import pyarrow.parquet as pq
import pytest

from captioning.captioner import CaptionerError
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.stages.run import StageOptions, run_stage
from tests.support.chat_server import MODEL, ChatServer
from tests.support.commands import manifest
from tests.support.keep_runs import without_beam
from tests.support.paths import ROOT
from tests.support.small_web import KEPT, RECIPE, write_recipe

FAR = """caption = "far"
[caption.prompts.web_v1]
text = "The page says {{alt}}. Describe."
without = "Describe."
[caption.gate.actions]
too_short = "keep"
[caption.far]
use = "openai"
base_url = "BASE"
model = "MODEL"
prompt = "web_v1"
api_key_env = "FAR_KEY"
concurrency = 4
tries = 3
try_s = 0.5
deadline_s = 5.0
backoff_s = 0.01
"""
KEY = "sk-nobody-may-see-this"
LASTING = {
    **{1: "429", 2: "500", 4: "slow", 5: "half", 6: "empty", 7: "dropped", 8: "cut"},
    9: "policy",
}
REASONS = {
    "endpoint_busy": 2,
    "endpoint_timeout": 1,
    "endpoint_bad_answer": 3,
    "endpoint_connection": 1,
    "endpoint_refused": 1,
}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("FAR_KEY", KEY)
    server = ChatServer(key=KEY)
    yield server
    server.close()


@pytest.fixture
def recipe(server, made, run, web, tmp_path):
    begin, end = RECIPE.index('caption = "llava"'), RECIPE.index("[pretokenize]")
    far = FAR.replace("BASE", server.base_url).replace("MODEL", MODEL)
    path = tmp_path / "far.toml"
    return write_recipe(path, web, made.parent / "in", run, RECIPE[:begin] + far + RECIPE[end:])


def caption(recipe, *sets):
    with without_beam():
        run_stage(load_recipe(recipe, sets), "caption", StageOptions())


def rows_of(run, folder=""):
    paths = sorted((run / "captions" / folder).glob("far-*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def test_faults_are_retried_or_counted_and_a_rerun_asks_for_those_alone(server, recipe, run):
    server.planted = {f'"picture number {n}"': f"fault:{fault}" for n, fault in LASTING.items()}
    server.planted['"picture number 0"'] = "fault:500x2"
    caption(recipe)
    rows = rows_of(run, "attempts")
    assert len(rows) == KEPT
    assert Counter(row["reason"] for row in rows if row["reason"]) == REASONS
    assert {row["text"] is None for row in rows if row["reason"]} == {True}
    made = manifest(run, "caption")
    assert (made.rows_in, made.kept, made.dropped) == (KEPT, KEPT - sum(REASONS.values()), REASONS)
    assert len(server.asked) == KEPT
    told = made.facts["captioners"]["far"]
    assert told["prompt_tokens"] == 11 * (KEPT - sum(REASONS.values()))
    assert (told["tokens"] > told["prompt_tokens"] / 2, told["same_words_again"]) == (True, "not promised")

    server.healed = True
    server.asked.clear()
    caption(recipe)
    passing = {name: count for name, count in REASONS.items() if name != "endpoint_refused"}
    assert len(server.asked) == sum(server.asked.values()) == sum(passing.values())
    again = manifest(run, "caption")
    assert (again.kept, again.dropped) == (KEPT - 1, {"endpoint_refused": 1})
    kept = {row["uid"]: row for row in rows_of(run, "attempts")}
    assert all(kept[row["uid"]] == row for row in rows if row["reason"] in (None, "endpoint_refused"))

    server.asked.clear()
    caption(recipe)
    caption(recipe, "caption.far.base_url='http://127.0.0.1:1/v1'", "caption.far.concurrency=2")
    assert not server.asked
    written = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert KEY.encode() not in written


def test_another_model_that_answers_is_one_failure(server, recipe, run):
    server.planted['"picture number 0"'] = "fault:model"
    with pytest.raises(CaptionerError, match=r"caption\.far\.model: 'stub-7b' was asked for and 'other-1b' answers"):
        caption(recipe)
    del server.planted['"picture number 0"']
    caption(recipe)
    assert manifest(run, "caption").kept == KEPT
    assert Counter(server.asked.values()) == {1: KEPT - 1, 2: 1}  # what had been answered was kept


def test_in_workers_beside_a_captioner_of_a_file(server, recipe, run, tmp_path):
    text = (ROOT / "docs" / "captions.md").read_text()
    (tmp_path / "my_captioner.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    server.planted['"picture number 0"'] = "fault:500x1"
    both = ["tier.finetune.caption=['mine', 'far']", "caption.python='my_captioner.py'", "caption.mine.use='sizes'"]
    run_stage(load_recipe(recipe, both), "caption", StageOptions())
    made = manifest(run, "caption")
    assert (made.kept, made.dropped) == (2 * KEPT, {})
    assert sorted(made.facts["captioners"]) == ["far", "mine"]
    assert {"name": "my_captioner.py"}.items() <= made.inputs[-1].items()
    (tmp_path / "my_captioner.py").write_text("1 / 0\n")
    with pytest.raises(RecipeError, match=r"my_captioner\.py, line 1: ZeroDivisionError"):
        load_recipe(recipe, both)
