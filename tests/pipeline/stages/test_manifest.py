"""pipeline/stages/manifest.py: a stage's manifest says what the journals of its steps say, its versions and parents."""

import platform
from dataclasses import replace

import pytest

from manifests.files import digest_of, write_json
from manifests.manifest import Manifest
from manifests.reasons import UnknownReason
from manifests.shard_table import shard_table
from pipeline.execution.in_flight import InFlight
from pipeline.inputs.files import InputFile
from pipeline.inputs.input_list import register_files
from pipeline.stages import manifest as manifest_module
from pipeline.stages.manifest import TooManyLosses, check_losses, stage_figures, versions, write_manifest
from tests.support.stage_steps import Doubles, Numbers, recipe_at

READABLE = InputFile("file:///in/a.parquet", "a.parquet", 99, "cd" * 32, (2, 4), ("URL",))
LOST = InputFile("file:///in/lost.parquet", "lost.parquet", 5, "", fault="not a readable Parquet file: ?")


@pytest.fixture
def steps(tmp_path):
    """Return two steps whose units are all done, of a run with one readable input file and one that is not."""
    register_files(tmp_path, [READABLE, LOST])
    steps = [kind(recipe_at(tmp_path), tmp_path) for kind in (Numbers, Doubles)]
    for step in steps:
        for unit in step.units():
            step.journal.record(step.run(unit, InFlight()))
    return steps


def bare(stage="filter", **values):
    """Return a manifest of ten rows, all kept."""
    empty = Manifest(stage, "recipe", [], [], 10, 10, {}, shard_table({}), [], {}, {})
    return replace(empty, **values)


def test_figures_are_the_sums_of_the_journals(steps):
    figures = stage_figures(steps)
    # two units of three rows, of which one is dropped
    assert (figures["rows_in"], figures["kept"], figures["dropped"]) == (6, 4, {"too_odd": 2})
    assert (figures["tiers"], figures["facts"]) == ({"pretrain": 4}, {"doubled": True})
    assert [(entry["step"], entry["path"], entry["rows_out"]) for entry in figures["shards"].to_pylist()] == [
        ("numbers", "numbers/00000.parquet", 2),
        ("numbers", "numbers/00001.parquet", 2),
        ("doubles", "doubles/00000.parquet", 2),
        ("doubles", "doubles/00001.parquet", 2),
    ]


def with_reason(recipe):
    """Return the recipe with a rule that is called what the steps' rows are dropped for."""
    rules = [{"use": "size", "min_side": 1, "name": "too_odd"}]
    return recipe.model_copy(update={"filter": recipe.filter.model_copy(update={"rules": rules})})


def test_a_manifest_is_written_from_its_steps(steps, tmp_path):
    manifest = write_manifest(with_reason(steps[0].recipe), "filter", steps)
    assert Manifest.read(tmp_path / "manifests" / "filter.json") == manifest
    assert (manifest.rows_in, manifest.kept, manifest.dropped) == (6, 4, {"too_odd": 2})
    assert manifest.recipe_digest == digest_of([["numbers", 1, {"seed": 0}], ["doubles", 1, {"limit": None}]])
    assert manifest.weights == [{"name": "small", "sha256": "ab" * 32, "stand_in": True}]  # of both, once
    assert manifest.losses == [{"kind": "file", "name": "lost.parquet"}]
    assert manifest.inputs == [{"name": "a.parquet", "bytes": 99, "footer_sha256": "cd" * 32, "rows": 6}]
    assert manifest.parent == ""


def test_a_reason_that_no_rule_has_is_a_defect(steps):
    with pytest.raises(UnknownReason, match="too_odd"):
        write_manifest(steps[0].recipe, "filter", steps)


def test_the_manifests_before_it_are_its_parents(steps, tmp_path):
    recipe = with_reason(steps[0].recipe)
    bare().write(tmp_path)
    parent = {"name": "manifests/filter.json", "digest": bare().digest}
    assert write_manifest(recipe, "caption", steps).inputs == [parent]
    assert write_manifest(recipe, "pretokenize", steps).inputs == [
        parent,
        {"name": "manifests/caption.json", "digest": Manifest.read(tmp_path / "manifests" / "caption.json").digest},
    ]
    (tmp_path / "manifests" / "caption.json").unlink()
    assert write_manifest(recipe, "pretokenize", steps).inputs == [parent]


def test_a_manifest_after_a_removal_names_the_digest_before_it(steps, tmp_path):
    stages = {"filter": {"before": "aa", "after": "bb"}}
    write_json(tmp_path / "manifests" / "removals" / "0001.json", {"stages": stages}, sealed=True)
    assert write_manifest(with_reason(steps[0].recipe), "filter", steps).parent == "aa"


def test_versions_are_those_of_python_processor_and_packages(monkeypatch):
    monkeypatch.setattr(manifest_module, "PACKAGES", ("numpy", "no-such-package"))
    found = versions()
    assert list(found) == ["python", "machine", "tessera-t2i", "numpy", "no-such-package"]
    assert found["python"] == platform.python_version()
    assert found["machine"].startswith(platform.machine())
    assert found["no-such-package"] == "not installed"


def file_lost(count):
    return [{"kind": "file", "name": f"{number}.parquet"} for number in range(count)]


OF_TEN = [
    # losses, readable files, dropped for a broken row group; what is too much of it at max_loss = 0.5
    (0, 2, 0, ""),
    (1, 1, 0, ""),
    (2, 1, 0, "filter: lost 2 of 3 files, more than input.max_loss = 0.5"),
    (0, 1, 5, ""),
    (0, 1, 6, "filter: lost 6 of 10 rows, more than input.max_loss = 0.5"),
    (0, 0, 0, ""),
]


def test_files_without_a_url_are_among_the_files_that_can_be_opened(tmp_path):
    """Of three files one does not open and one has no URL: two thirds are lost."""
    inputs = [{"name": str(number), "rows": 5} for number in range(2)]
    losses = [*file_lost(1), {"kind": "urls", "name": "0", "rows": 5}]
    manifest = bare(inputs=inputs, losses=losses, kept=5, dropped={"bad_url": 5})
    with pytest.raises(TooManyLosses, match=r"filter: lost 2 of 3 files, more than input\.max_loss = 0\.5"):
        check_losses(recipe_at(tmp_path), manifest)


@pytest.mark.parametrize(("lost", "readable", "broken", "says"), OF_TEN)
def test_more_losses_than_the_recipe_allows_end_the_run(tmp_path, lost, readable, broken, says):
    inputs = [{"name": str(number), "rows": 5} for number in range(readable)] + [{"name": "own.py", "sha256": "aa"}]
    dropped = {"broken_row_group": broken} if broken else {}
    manifest = bare(inputs=inputs, losses=file_lost(lost), kept=10 - broken, dropped=dropped)
    if says:
        with pytest.raises(TooManyLosses, match=says):
            check_losses(recipe_at(tmp_path), manifest)
    else:
        check_losses(recipe_at(tmp_path), manifest)
