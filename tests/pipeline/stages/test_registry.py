"""pipeline/stages/registry.py: the stages, their steps in order, and the one that a stage goes on from."""

import pytest

from pipeline.execution.step import Runtime
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.stages.registry import NEEDS, STAGES, stage_steps


def recipe(root="runs/x"):
    return parse_recipe({"output": {"root": str(root)}, "tier": {"pretrain": {"size": 64}}})


def test_every_stage_has_its_steps_in_order():
    names = {stage: [step.name for step in steps] for stage, steps in STAGES.items()}
    assert names == {
        "filter": ["select", "fetch", "score", "dedup", "decide"],
        "caption": ["caption", "measure", "recaption", "remeasure", "repeats", "judge"],
        "pretokenize": ["encode", "t5", "pack", "index"],
    }
    assert NEEDS == {"filter": None, "caption": "filter", "pretokenize": "filter"}


def test_dedup_decide_and_repeats_alone_look_at_all_rows_and_they_and_index_run_in_the_driver():
    steps = [step for steps in STAGES.values() for step in steps]
    assert [step.name for step in steps if step.over_all_rows] == ["dedup", "decide", "repeats"]
    assert [step.name for step in steps if not step.beam] == ["dedup", "decide", "repeats", "index"]


def test_steps_work_in_the_recipes_run_folder(tmp_path):
    runtime = Runtime(retry=("timeout",))
    steps = stage_steps(recipe(tmp_path), "pretokenize", runtime)
    assert [(step.name, step.root, step.runtime) for step in steps] == [
        ("encode", tmp_path, runtime),
        ("t5", tmp_path, runtime),
        ("pack", tmp_path, runtime),
        ("index", tmp_path, runtime),
    ]


def test_an_unknown_stage_is_refused_with_the_choices():
    with pytest.raises(RecipeError, match="--stage 'filtre': no such stage; choices: filter, caption, pretokenize"):
        stage_steps(recipe(), "filtre", Runtime())
