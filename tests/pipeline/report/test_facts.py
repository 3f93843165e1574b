"""The facts of a run folder, whatever stage it has reached."""

import pytest

from manifests.files import read_json, write_json
from manifests.reasons import GROUPS
from manifests.weights import WeightsFile
from pipeline.evaluation.ground_truth import TruthError
from pipeline.report.examples import Examples
from pipeline.report.facts import STEPS, Facts, Fates, Prediction, Stages, count_fates, gather, read_stages
from pipeline.report.training import Training
from tests.support.report_runs import filter_manifest, write_run, write_truth

FATES = Fates(6, 3, {"near_duplicate": 1, "similarity": 1, "http_404": 1}, {"pretrain": 3, "finetune": 2})


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Return a run of six rows, which no test may change."""
    return write_run(tmp_path_factory.mktemp("six") / "run", 6)


def test_every_group_of_reasons_is_a_step_of_the_funnel():
    assert tuple(STEPS) == GROUPS


def test_an_empty_folder_has_empty_facts(tmp_path):
    (tmp_path / "demo" / "run").mkdir(parents=True)
    facts = gather(tmp_path / "demo" / "run")
    assert facts == Facts("demo/run", Stages(), (), Examples(), None, Training())
    assert (facts.fates, facts.has_stand_ins) == (Fates(0, 0, {}, {}), False)


def test_the_manifest_is_what_counts(six):
    facts = gather(six)
    assert facts.fates == FATES
    assert facts.stages.digests == {"filter": "5f" * 32}
    assert facts.stages.losses == ("broken.parquet cut",)
    assert facts.has_stand_ins
    assert list(facts.examples.kept) == ["pretrain", "finetune"]
    assert facts.planted is None


def test_a_ledger_without_a_manifest_is_counted(tmp_path):
    root = write_run(tmp_path / "run", 12)
    (root / "manifests" / "filter.json").unlink()
    facts = gather(root)
    assert (facts.fates.rows_in, facts.fates.kept) == (12, 6)
    assert list(facts.fates.dropped.items()) == [("http_404", 2), ("near_duplicate", 2), ("similarity", 2)]
    assert list(facts.fates.tiers.items()) == [("finetune", 4), ("pretrain", 6)]
    assert list(facts.examples.kept) == ["finetune", "pretrain"]


def test_rows_of_several_ledgers_are_counted_together(six, tmp_path):
    (path,) = (six / "ledger" / "final").iterdir()
    assert count_fates(six, [path, path]).rows_in == 12
    assert count_fates(six, [path, path]).tiers == {"finetune": 4, "pretrain": 6}


def test_each_weights_file_is_named_once(tmp_path):
    write_json(tmp_path / "manifests" / "filter.json", filter_manifest(1))
    llava = {"name": "llava", "sha256": "ee" * 32, "stand_in": False}
    caption = {"rows_in": 3, "digest": "aa", "weights": [filter_manifest(1)["weights"][0], llava]}
    write_json(tmp_path / "manifests" / "caption.json", caption)
    stages = read_stages(tmp_path)
    assert stages.digests == {"caption": "aa", "filter": "5f" * 32}
    assert stages.weights == (
        WeightsFile("aesthetic_v2", "ab" * 32, True),
        WeightsFile("llava", "ee" * 32, False),
        WeightsFile("open_nsfw", "cd" * 32, False),
    )
    assert stages.stand_in_captions


def test_what_is_no_manifest_of_a_stage_is_left_out(tmp_path):
    write_json(tmp_path / "manifests" / "input.json", {"files": []})
    (tmp_path / "manifests" / "filter.json").write_text('{"rows_in": ')
    assert read_stages(tmp_path) == Stages()


@pytest.mark.parametrize(("stand_in", "words"), [(True, "recaptioned with stand-in weights"), (False, "recaptioned")])
def test_captions_say_whether_stand_ins_wrote_them(tmp_path, monkeypatch, stand_in, words):
    root = write_run(tmp_path / "run", 6)
    weights = [{"name": "llava", "sha256": "ee" * 32, "stand_in": stand_in}]
    write_json(root / "manifests" / "caption.json", {"rows_in": 3, "weights": weights})
    said = []
    monkeypatch.setattr("pipeline.report.facts.read_examples", lambda *given: said.append(given[3]) or Examples())
    gather(root)
    assert said == [words]


def test_the_truth_table_gives_numbers_and_the_words_of_rows_that_never_came(six, tmp_path):
    write_truth(tmp_path / "truth.parquet", 6)
    facts = gather(six, tmp_path / "truth.parquet")
    assert (facts.planted.groups, facts.planted.single_survivors) == (1, 1)
    assert [row.text for row in facts.examples.dropped["http_404"]] == ["alt text of row 5"]
    assert gather(six, tmp_path / "nowhere.parquet") == gather(six)


def test_a_truth_table_of_another_input_is_an_error(six, tmp_path):
    write_truth(tmp_path / "truth.parquet", 12)
    with pytest.raises(TruthError, match=r"row 6 of part\.parquet has no fate"):
        gather(six, tmp_path / "truth.parquet")


def test_what_was_predicted_stands_beside_what_came_out(tmp_path):
    root = write_run(tmp_path / "run", 6)
    span = {"low": 1, "mid": 2, "high": 3000}
    write_json(root / "plan.json", {"rows": 7, "kept": span, "tiers": {"pretrain": span}, "dropped": {}})
    assert gather(root).predictions == (
        Prediction("rows in", "7", "6"),
        Prediction("kept", "1 to 3,000", "3"),
        Prediction("tier pretrain", "1 to 3,000", "3"),
    )


def test_refusals_come_from_the_filters_manifest(tmp_path):
    root = write_run(tmp_path / "run", 6)
    path = root / "manifests" / "filter.json"
    manifest = read_json(path)
    manifest.pop("format")
    facts = {"refusals": {"tdmrep.json": 2}, "removed_by_list": {"hashes.csv": 3}}
    write_json(path, {**manifest, "facts": facts}, sealed=True)
    assert gather(root).stages.refusals == {"tdmrep.json": 2}
    assert gather(root).stages.removed == {"hashes.csv": 3}
