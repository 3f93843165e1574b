"""pipeline/maintenance/repair/shards.py: a shard is made again, and only what is proved to be what it was is taken."""

from dataclasses import asdict, replace

import pytest

from manifests.files import FormatError
from manifests.findings import Finding
from manifests.journal import records_of
from manifests.manifest import Manifest
from manifests.shard_table import shard_table
from pipeline.execution.in_flight import InFlight
from pipeline.maintenance.repair.shards import make_shards, settle_doubts
from tests.support.repairs import repair_of
from tests.support.stage_steps import Numbers, recipe_at

OUTPUT, RECORD = "score/00000.parquet", "manifests/journal/score/00000.json"
OTHER = "score/00001.parquet"


class Score(Numbers):
    """A step of filter with two shards, whose worker is the driver."""

    name = "score"


class Changed(Score):
    """The same, which makes other numbers now."""

    def run(self, unit, in_flight):
        return self.finish(unit, [77, 78], {"too_odd": 1})


class Broken(Score):
    """The same, which cannot read what the first shard is made from."""

    def run(self, unit, in_flight):
        if unit.name == "00000":
            raise FormatError(f"{self.root}/pairs/00000.tar: damaged")
        return super().run(unit, in_flight)


@pytest.fixture
def run(tmp_path):
    """Return a run in which the step has done its two shards."""
    step = Score(recipe_at(tmp_path / "run"), tmp_path / "run")
    for unit in step.units():
        step.journal.record(step.run(unit, InFlight()))
    return step.root


def repair(run, *names, kind=Score):
    """Return (repair, step in the copy) of a run whose files `names` are damaged."""
    work = repair_of(run, *names, step="score")
    return work, kind(work.recipe, work.copy)


def shards_of(step, *names):
    units = {unit.name: unit for unit in step.units()}
    return [(name, units.get(name)) for name in names or ("00000",)]


def spoil(run, *names):
    """Damage files; return what they held."""
    before = {name: (run / name).read_bytes() for name in names}
    for name in names:
        (run / name).write_bytes(b"?")
    return before


def test_a_damaged_output_is_made_again(run):
    before = spoil(run, OUTPUT)
    work, step = repair(run, OUTPUT)
    make_shards(work, "filter", step, shards_of(step))
    assert (work.repaired, work.left) == ({OUTPUT: "score made it again"}, {})
    assert (run / OUTPUT).read_bytes() == before[OUTPUT]


def test_other_bytes_are_not_taken(run):
    spoil(run, OUTPUT)
    work, step = repair(run, OUTPUT, kind=Changed)
    make_shards(work, "filter", step, shards_of(step))
    assert work.repaired == {}
    assert work.left[OUTPUT].startswith("made again it has sha256 ")
    assert work.left[OUTPUT].endswith("… wanted")
    assert (run / OUTPUT).read_bytes() == b"?"
    assert not (work.copy / OUTPUT).exists()  # what later steps read is what the run holds


def test_a_shard_that_cannot_be_made_says_why_and_the_others_come_back(run):
    before = spoil(run, OUTPUT, OTHER)
    work, step = repair(run, OUTPUT, OTHER, kind=Broken)
    make_shards(work, "filter", step, shards_of(step, "00000", "00001"))
    assert work.left == {OUTPUT: f"it could not be made again: {run}/pairs/00000.tar: damaged"}
    assert work.repaired == {OTHER: "score made it again"}
    assert (run / OTHER).read_bytes() == before[OTHER]


def test_a_defect_is_no_reason_to_leave_a_file(run, monkeypatch):
    def fail(*_):
        """Fall over as no damaged file makes a step do."""
        raise AssertionError("rows went missing")

    work, step = repair(run, OUTPUT)
    monkeypatch.setattr(Score, "run", fail)
    with pytest.raises(AssertionError, match="rows went missing"):
        make_shards(work, "filter", step, shards_of(step))


def test_a_shard_that_the_plan_has_no_more_stays(run):
    work, step = repair(run, OUTPUT)
    make_shards(work, "filter", step, [("00000", None)])
    assert work.left == {
        OUTPUT: "the plan has no shard 00000: the run has gone on since, or has another recipe now; first: pipeline run"
        " --stage filter"
    }


def test_a_shard_that_would_be_made_from_something_else_stays(run):
    work, step = repair(run, OUTPUT)
    ((_, unit),) = shards_of(step)
    make_shards(work, "filter", step, [("00000", replace(unit, key="another"))])
    assert work.left[OUTPUT].startswith("what it is made from is not what it was: the run has gone on since")


def test_a_shard_made_from_a_lost_file_names_it(run):
    work, step = repair(run, OUTPUT)
    work.left["pairs/00000.tar"] = "why"
    ((_, unit),) = shards_of(step)
    make_shards(work, "filter", step, [("00000", replace(unit, reads={**unit.reads, "pairs": "pairs/00000.tar"}))])
    assert work.left[OUTPUT] == "what it is made from, pairs/00000.tar, could not be repaired"


def test_pictures_that_may_not_be_read_are_not_fetched_again(run, monkeypatch):
    class Fetch(Score):
        """The step whose shards come from the web."""

        name = "fetch"

    (run / "pairs").mkdir()
    (run / "pairs" / "00000.tar").write_bytes(b"?")
    work, _ = repair(run, OUTPUT)
    work.found = {"pairs/00000.tar": Finding("pairs/00000.tar", "damaged", "?", "fetch", "00000")}
    step = Fetch(work.recipe, work.copy)
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith(".tar"))
    make_shards(work, "filter", step, shards_of(step))
    assert work.left["pairs/00000.tar"].startswith("pairs/00000.tar may not be read and written to")


def listed(run, work):
    """Let the stage's manifest list the shards as they were."""
    shards = shard_table({"score": records_of(run, "score")})
    work.manifests["filter"] = Manifest("filter", "", [], [], 6, 4, {"too_odd": 2}, shards, [], {}, {})


def test_a_lost_record_comes_back_where_the_manifest_lists_its_shard(run):
    work, step = repair(run, RECORD)
    listed(run, work)
    before = spoil(run, RECORD)
    make_shards(work, "filter", step, shards_of(step))
    assert (work.repaired, work.left) == ({RECORD: "score made its shard again"}, {})
    assert (run / RECORD).read_bytes() == before[RECORD]


def test_a_record_of_another_shard_than_the_manifest_lists_is_not_taken(run):
    work, step = repair(run, RECORD, kind=Changed)
    listed(run, work)
    spoil(run, RECORD)
    make_shards(work, "filter", step, shards_of(step))
    assert work.left == {RECORD: "its shard, made again, is not what the manifest lists"}


def test_a_record_that_nothing_lists_comes_back_where_the_folder_holds_its_shard(run):
    before = spoil(run, RECORD)
    work, step = repair(run, RECORD)
    make_shards(work, "filter", step, shards_of(step))
    assert work.repaired == {RECORD: "score made its shard again, just as the folder holds it"}
    assert (run / RECORD).read_bytes() == before[RECORD]


@pytest.fixture
def doubtful(run):
    """Return (repair, the record's and output's bytes) of a shard whose record and output are lost: it is made again,
    and nothing says what it was."""
    before = spoil(run, RECORD, OUTPUT)
    work, step = repair(run, RECORD)
    make_shards(work, "filter", step, shards_of(step))
    return work, before


def test_what_nothing_proves_awaits_a_proof(doubtful):
    work, before = doubtful
    assert (work.repaired, work.left) == ({}, {})
    assert [asdict(doubt) for doubt in work.doubts] == [
        {"stage": "filter", "step": "score", "record": RECORD, "files": (OUTPUT,)}
    ]
    settle_doubts(work, "pretokenize", "another stage's proof")
    assert len(work.doubts) == 1
    settle_doubts(work, "filter", "as the digest proves")
    assert work.doubts == []
    assert work.repaired == dict.fromkeys((OUTPUT, RECORD), "score made it again, as the digest proves")
    assert {name: (work.root / name).read_bytes() for name in before} == before


def test_what_stays_unproved_is_left_with_advice(doubtful):
    work, _ = doubtful
    settle_doubts(work, "filter", "")
    assert (work.doubts, work.repaired) == ([], {})
    assert work.left == {
        RECORD: f"nothing says any more what its shard was, and {OUTPUT}, made again, is not what the folder holds;"
        " pipeline run --stage filter makes it anew"
    }
    assert (work.copy / OUTPUT).read_bytes() == b"?"
