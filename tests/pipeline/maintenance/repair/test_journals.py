"""pipeline/maintenance/repair/journals.py: records come back from their copy, or with the shards that prove them."""

import shutil

import pytest

from manifests.journal import Journal, records_of
from manifests.verify import verify_run
from pipeline.execution.in_flight import InFlight
from pipeline.execution.run_folder import recipe_of_run
from pipeline.maintenance.repair.journals import NOTHING, end_journal, mend_journal
from pipeline.maintenance.repair.run import STAGE_STEPS
from pipeline.recipes.schema import RecipeError
from pipeline.stages.run import StageOptions, run_stage
from tests.support.keep_runs import differing, mend, without_beam
from tests.support.repairs import repair_of
from tests.support.stage_steps import Numbers, recipe_at

STEPS = ("select", "fetch", "first", "score", "dedup", "decide", "caption", "encode", "pack")


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def wrong(root):
    return {finding.path for finding in verify_run(root, STAGE_STEPS).wrong}


def tables(root, *steps):
    return [path for step in steps for path in Journal(root, step).tables]


def names(root, paths):
    return {path.relative_to(root).as_posix() for path in paths}


@pytest.mark.parametrize("which", [0, 1])
def test_a_table_comes_back_from_its_copy(run, made, web, which):
    hit = [Journal(run, step).tables[which] for step in STEPS]
    for number, path in enumerate(hit):
        path.write_bytes(path.read_bytes()[:-100] if number % 2 else b"")
    assert wrong(run) == names(run, hit)
    asked = len(web.hits)
    work = mend(run)
    assert (work.left, set(work.repaired)) == ({}, names(run, hit))
    assert differing(run, made) == []
    assert len(web.hits) == asked


def test_a_byte_of_a_tables_form_is_put_right(run, made):
    path = Journal(run, "fetch").tables[0]
    data = path.read_bytes()
    at = data.rindex(b"parquet-cpp")  # who wrote it
    path.write_bytes(data[:at] + b"P" + data[at + 1 :])
    assert wrong(run) == names(run, [path])
    assert mend(run).left == {}
    assert differing(run, made) == []


def test_records_that_are_lost_twice_come_back_with_their_shards(run, made, web):
    """No picture is asked for: each stands in its tar as it was."""
    hit = tables(run, "fetch", "score", "first")
    for path in hit:
        path.write_bytes(b"?")
    assert names(run, hit) <= wrong(run)
    asked = len(web.hits)
    work = mend(run)
    assert work.left == {}
    assert len(web.hits) == asked
    for step in ("fetch", "score", "first"):
        assert records_of(run, step) == records_of(made, step)
    assert wrong(run) == set()


def test_so_they_do_where_no_stage_has_ended(run, made, web):
    shutil.rmtree(run / "manifests" / "removals", ignore_errors=True)
    for name in ("filter", "caption", "pretokenize", "digests"):
        for path in run.glob(f"manifests/{name}.*"):
            path.unlink()
    hit = tables(run, "fetch")
    for path in hit:
        path.write_bytes(b"?")
    asked = len(web.hits)
    with without_beam(), pytest.raises(RecipeError, match=r"fetch: the records .* damaged .*first: pipeline repair"):
        run_stage(recipe_of_run(run), "filter", StageOptions())
    assert len(web.hits) == asked
    assert mend(run).left == {}
    assert len(web.hits) == asked
    assert records_of(run, "fetch") == records_of(made, "fetch")
    assert wrong(run) == set()
    with without_beam():
        assert run_stage(recipe_of_run(run), "filter", StageOptions()).made == 0


def test_the_shards_of_a_manifest_come_back_from_the_journals(run, made):
    hit = [run / "manifests" / f"{stage}.parquet" for stage in ("filter", "pretokenize")]
    hit[0].write_bytes(hit[0].read_bytes()[:-1])
    hit[1].unlink()
    assert wrong(run) == names(run, hit)
    work = mend(run)
    assert (work.left, set(work.repaired)) == ({}, names(run, hit))
    assert differing(run, made) == []


def test_where_no_record_comes_back_the_advice_is_to_begin_anew(tmp_path):
    step = Numbers(recipe_at(tmp_path / "run"), tmp_path / "run")
    records = [step.run(unit, InFlight()) for unit in step.units()]
    for record in records:
        step.journal.record(record)
    step.journal.compact()
    hit = names(step.root, step.journal.tables)
    before = step.journal.tables[0].read_bytes()
    for path in step.journal.tables:
        path.write_bytes(b"?")
    work = repair_of(step.root, *hit, step=step.name)
    inside = Numbers(work.recipe, work.copy)
    mend_journal(work, inside)
    assert (work.repaired, work.left) == ({}, {})
    end_journal(work, inside)
    assert work.left == dict.fromkeys(hit, NOTHING)
    work.left.clear()
    for record in records:
        inside.journal.record(record)
    end_journal(work, inside)
    assert work.repaired == dict.fromkeys(hit, "from the records of its shards, made again")
    assert {path.read_bytes() for path in step.journal.tables} == {before}
