"""Removals lead back to the manifest that a stage wrote, and a damaged record of one is left out."""

from manifests.files import write_json
from manifests.lineage import former, origin, removals


def record(root, number, **stages):
    entries = {stage: {"before": before, "after": after} for stage, (before, after) in stages.items()}
    write_json(root / "manifests/removals" / f"{number:04d}.json", {"stages": entries}, sealed=True)


def test_removals_lead_back_to_the_manifest_that_a_stage_wrote(tmp_path):
    record(tmp_path, 1, filter=("a", "b"), pretokenize=("x", "y"))
    record(tmp_path, 2, filter=("b", "c"))
    assert [origin(tmp_path, "filter", digest) for digest in "abcd"] == ["a", "a", "a", "d"]
    assert (former(tmp_path, "filter"), former(tmp_path, "pretokenize"), former(tmp_path, "caption")) == ("b", "x", "")


def test_a_run_between_two_removals_is_an_origin_of_its_own(tmp_path):
    record(tmp_path, 1, filter=("a", "b"))
    record(tmp_path, 2, filter=("n", "o"))  # the stage ran again meanwhile, with other rules
    assert (origin(tmp_path, "filter", "o"), origin(tmp_path, "filter", "b")) == ("n", "a")


def test_a_damaged_record_is_left_out(tmp_path):
    record(tmp_path, 1, filter=("a", "b"))
    (tmp_path / "manifests/removals/0002.json").write_text('{"stages": ')
    assert len(removals(tmp_path)) == 1


def test_without_removals_a_manifest_is_its_own_origin(tmp_path):
    assert (origin(tmp_path, "filter", "a"), former(tmp_path, "filter"), removals(tmp_path)) == ("a", "", [])
