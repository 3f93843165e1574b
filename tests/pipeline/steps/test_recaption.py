"""Who is asked a second time follows from stored measures; a threshold that asks nobody runs nothing."""

import pyarrow.parquet as pq
import pytest

from pipeline.steps.measure import Measure
from pipeline.steps.recaption import Recaption
from tests.support.attempts import do_step, put_attempts, put_texts, recipe_of
from tests.support.records import uid


@pytest.fixture
def root(tmp_path):
    """Return a run folder with measured first attempts of four pictures."""
    put_texts(tmp_path, [("alt 0", None), ("alt 1", None), (None, None), ("alt 3", None)])
    put_attempts(tmp_path, {0: "a fine cat sits", 1: "cat", 2: "", 3: None})
    do_step(Measure(recipe_of(), tmp_path))
    return tmp_path


def planned(root, gate=None, **caption):
    units = Recaption(recipe_of(gate, **caption), root).plan()
    return [row for unit in units for row in pq.read_table(root / unit.reads["plan"]).to_pylist()]


def test_those_with_a_flag_that_asks_for_it_are_asked_again(root):
    rows = planned(root)  # too_short asks for it; an attempt without words has no flag
    assert [(row["uid"], row["prompt"], row["seed"]) for row in rows] == [
        (uid(1), "describe_v1", 1),
        (uid(2), "describe_v1", 1),
    ]


def test_nobody_is_asked_again_where_no_flag_asks_for_it(root):
    assert planned(root, {"min_words": 0}) == []
    assert planned(root, {"actions": {"too_short": "drop_caption"}}) == []


def test_the_second_question_is_another_prompt_or_another_seed(root):
    rows = planned(root, {"retry_prompt": "realign_v1"})
    assert [(row["prompt"], row["seed"], row["alt"]) for row in rows] == [
        ("realign_v1", 0, "alt 1"),
        ("realign_v1", 0, None),
    ]
    assert {row["seed"] for row in planned(root, {"retry_seed": 7})} == {7}


def test_a_threshold_that_asks_the_same_pictures_changes_no_unit(root):
    before = Recaption(recipe_of(), root).units()
    after = Recaption(recipe_of({"min_words": 2, "after_retry": "keep"}), root).units()
    assert [(unit.name, unit.key) for unit in after] == [(unit.name, unit.key) for unit in before]
    assert Recaption(recipe_of({"retry_seed": 7}), root).units() != before
