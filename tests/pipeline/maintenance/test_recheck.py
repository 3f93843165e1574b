"""Kept rows are asked for again: what is refused now is listed for remove, and the run stays as it is."""

import csv
import json

import pytest

from filters.fetch.optout import FORMER
from filters.fetch.sites import SiteCache
from manifests.manifest import Manifest
from manifests.verify import verify_run
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Runtime
from pipeline.maintenance import recheck
from pipeline.maintenance.recheck import COLUMNS, recheck_run
from pipeline.maintenance.remove.run import remove_rows
from pipeline.maintenance.remove.selectors import gather
from pipeline.recipes.schema import RecipeError
from pipeline.stages.registry import STAGES
from tests.support.keep_runs import differing
from tests.support.object_store import in_memory, put_run
from tests.support.removals import remove
from tests.support.small_web import KEPT

ROBOTS = b"User-agent: *\nDisallow: /3.jpg\nContent-Signal: /5.jpg ai-train=no\n"
STEPS = {stage: tuple(step.name for step in steps) for stage, steps in STAGES.items()}


@pytest.fixture
def refusing(web):
    """Let the small web have a robots.txt while a test runs."""
    web.pages["/robots.txt"] = ROBOTS
    yield web
    del web.pages["/robots.txt"]


def ask(root, **options):
    return recheck_run(root, recipe_of_run(root), Runtime(), **options)


def listed(done):
    return list(csv.reader(done.list.read_text().splitlines()))


def test_where_nobody_refuses_the_list_is_empty_and_the_run_as_it_was(run, made):
    done = ask(run)
    assert (done.rows, done.allowed, done.refused, done.unknown, done.refusals) == (KEPT, KEPT, 0, {}, {})
    assert listed(done) == [list(COLUMNS)]
    assert set(differing(run, made)) == {"recheck/refused.csv", "recheck/round.json"}
    assert verify_run(run, STEPS).findings == verify_run(made, STEPS).findings


@pytest.mark.parametrize("sites_only", [False, True])
def test_what_is_refused_now_is_listed_with_its_receipt_and_remove_takes_the_list(run, refusing, sites_only):
    digest = Manifest.read(run / "manifests" / "filter.json").digest
    refusing.hits.clear()
    done = ask(run, sites_only=sites_only)
    assert (done.rows, done.allowed, done.refused) == (KEPT, KEPT - 2, 2)
    assert done.refusals == {"robots.txt": 1, "robots.txt Content-Signal": 1}
    rows = {tuple(row[1:]) for row in listed(done)[1:]}
    signal = ("opted_out", "robots.txt Content-Signal", "Content-Signal: /5.jpg ai-train=no")
    assert rows == {("robots", "robots.txt", "Disallow: /3.jpg"), signal}
    asked = [path for path in refusing.hits if path.endswith(".jpg")]
    assert len(asked) == (0 if sites_only else KEPT - 2)
    assert Manifest.read(run / "manifests" / "filter.json").digest == digest
    selectors = gather({}, [str(done.list)])
    assert [one.kind for one in selectors] == ["uid", "uid"]
    remove(run, uid=[one.value for one in selectors])
    assert not (run / "recheck").exists()
    assert ask(run, sites_only=sites_only).rows == KEPT - 2
    assert not verify_run(run, STEPS).wrong


def test_a_round_that_was_stopped_goes_on_and_one_that_ended_begins_anew(run, refusing, monkeypatch):
    monkeypatch.setattr(recheck, "PART_ROWS", 3)
    asked, parts = recheck._asked, []

    def stopped(rows, *others):
        parts.append(len(rows))
        if len(parts) == 4:
            raise KeyboardInterrupt
        return asked(rows, *others)

    monkeypatch.setattr(recheck, "_asked", stopped)
    with pytest.raises(KeyboardInterrupt):
        ask(run)
    before = sum(parts[:3])
    assert len(list((run / "recheck" / "parts").iterdir())) == 3
    assert not (run / "recheck" / "refused.csv").exists()
    refusing.hits.clear()
    done = ask(run)
    assert (done.rows, done.refused) == (KEPT, 2)
    assert sum(parts[4:]) == KEPT - before
    assert not (run / "recheck" / "parts").exists()
    assert json.loads((run / "recheck" / "round.json").read_text())["ended"] is True
    parts[:] = [0] * 10
    assert ask(run).refused == 2
    assert sum(parts[10:]) == KEPT


def test_a_url_is_asked_for_once_in_whatever_spelling(run, refusing):
    spellings = ["http://pictures.test/3.jpg", "http:pictures.test/x/../3.jpg", "http://Pictures.test./2.jpg?"] * 2
    rows = [{"uid": bytes([number]) * 16, "url": url} for number, url in enumerate(spellings)]
    refusing.hits.clear()
    found = recheck._asked(rows, recipe_of_run(run).fetch, SiteCache(), False, recheck._Shown())
    assert found["outcomes"] == {"allowed": 2, "refused": 4}
    assert [uid[:2] for uid, *_ in found["refused"]] == ["00", "01", "03", "04"]
    assert [path for path in refusing.hits if path.endswith(".jpg")] == ["/2.jpg"]


def test_a_site_that_cannot_be_reached_refuses_nothing(run):
    recipe = recipe_of_run(run)
    nowhere = recipe.fetch.model_copy(update={"connect_to": {"pictures.test": "127.0.0.1:1"}, "max_wait_s": 0})
    done = recheck_run(run, recipe.model_copy(update={"fetch": nowhere}), Runtime(), sites_only=True)
    assert (done.refused, done.unknown) == (0, {"connection": KEPT})


def test_a_list_of_words_means_what_it_says(run):
    recipe = recipe_of_run(run)
    old = recipe.model_copy(update={"fetch": recipe.fetch.model_copy(update={"opt_outs": list(FORMER)})})
    fewer = recipe.model_copy(update={"fetch": recipe.fetch.model_copy(update={"opt_outs": ["noai"]})})
    assert recheck._config(old, Runtime()).opt_outs == list(FORMER)
    assert recheck._config(fewer, Runtime(connect_to={"a": "b"})).opt_outs == ["noai"]
    assert recheck._config(fewer, Runtime(connect_to={"a": "b"})).connect_to["a"] == "b"


def test_runs_without_sites_or_fates_are_refused(run, tmp_path):
    recipe = recipe_of_run(run)
    local = recipe.model_copy(update={"input": recipe.input.model_copy(update={"dataset": "img2dataset"})})
    with pytest.raises(RecipeError, match="no site to ask again"):
        recheck_run(run, local, Runtime())
    with pytest.raises(RecipeError, match="no row has a fate yet"):
        recheck_run(tmp_path / "new", recipe, Runtime())


def test_a_run_in_a_store_is_asked_about_and_its_list_names_what_goes(run, refusing):
    root = put_run(run, in_memory())
    done, here = ask(root), ask(run)
    assert (done.rows, done.allowed, done.refused, done.refusals) == (KEPT, KEPT - 2, 2, here.refusals)
    assert done.list.read_text() == here.list.read_text()
    selectors = gather({}, [str(done.list)])
    assert [one.kind for one in selectors] == ["uid", "uid"]
    remove_rows(root, recipe_of_run(root), Runtime(), selectors)
    assert verify_run(root, STEPS).findings == ()
    with pytest.raises(RecipeError, match=r"--list memory://.*/recheck/refused.csv: No such file"):
        gather({}, [str(done.list)])
    (root / "odd.csv").write_bytes(b"md5\nzz\n")
    with pytest.raises(RecipeError, match=r"--list memory://.*/run/odd.csv: line 2"):
        gather({}, [str(root / "odd.csv")])
