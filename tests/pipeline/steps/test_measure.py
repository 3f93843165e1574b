"""Attempts are measured once, whatever the thresholds are; what is not at hand is null and said."""

import pyarrow.parquet as pq

from manifests.tables import ATTEMPTED
from pipeline.steps import measure
from pipeline.steps.measure import MEASURED, Measure, Remeasure, measured_with
from tests.support.attempts import do_step, put_attempts, put_texts, recipe_of


def test_a_row_per_attempt_in_their_order(tmp_path):
    put_texts(tmp_path, [("A red cat", None), ("x", None), (None, "y")])
    put_attempts(tmp_path, {2: "One. Two two.", 0: "a red cat", 1: None})
    (record,) = do_step(Measure(recipe_of(), tmp_path))
    table = pq.read_table(tmp_path / "captions/measures/llava-00000.parquet")
    assert (record.rows_in, record.rows_out, table.schema.names) == (3, 3, MEASURED.names)
    rows = table.to_pylist()
    assert [row["words"] for row in rows] == [3, 3, None]
    assert [row["alt_likeness"] for row in rows] == [None, 1.0, None]
    assert [row["sentence_ends"] for row in rows] == [[4, 13], [9], None]
    assert [row["reason"] for row in rows] == [None, None, "not_an_image"]
    assert (
        table["uid"].to_pylist() == pq.read_table(tmp_path / "captions/attempts/llava-00000.parquet")["uid"].to_pylist()
    )


def test_tokens_are_counted_up_to_each_sentence_where_the_tokenizer_lies(tmp_path, tiny_t5):
    put_texts(tmp_path, [("x", None)])
    put_attempts(tmp_path, {0: "A cat. A dog."})
    recipe = recipe_of()
    with_t5 = recipe.model_copy(
        update={"pretokenize": recipe.pretokenize.model_copy(update={"t5_weights": str(tiny_t5)})}
    )
    step = Measure(with_t5, tmp_path)
    do_step(step)
    (row,) = pq.read_table(tmp_path / "captions/measures/llava-00000.parquet").to_pylist()
    assert len(row["sentence_tokens"]) == 2
    assert 0 < row["sentence_tokens"][0] < row["sentence_tokens"][1] == row["t5_tokens"]
    assert step.notes() == []
    assert step.own_key != Measure(recipe, tmp_path).own_key


def test_without_a_tokenizer_nothing_stops_and_it_is_said(tmp_path):
    recipe = recipe_of()
    assert measured_with(recipe)["tokens"] is None
    (note,) = Measure(recipe, tmp_path).notes()
    assert note == (
        "measure: weights of T5 are not at hand (pretokenize.t5_weights = 'google/flan-t5-xl'):"
        " no caption is over_tokens"
    )
    assert Remeasure(recipe, tmp_path).notes() == []


def test_thresholds_and_actions_are_in_no_key(tmp_path):
    keys = [
        Measure(recipe_of(gate), tmp_path).own_key
        for gate in ({}, {"min_words": 9}, {"actions": {"refusal": "keep"}}, {"retry_prompt": "visible_only_v1"})
    ]
    assert len(set(keys)) == 1


def test_second_attempts_are_measured_beside_the_first_ones(tmp_path):
    put_texts(tmp_path, [("x", None)] * 2)
    put_attempts(tmp_path, {0: "one two three", 1: "four"})
    put_attempts(tmp_path, {1: "four five six seven"}, second=True)
    do_step(Measure(recipe_of(), tmp_path))
    do_step(Remeasure(recipe_of(), tmp_path))
    table = pq.read_table(tmp_path / "captions/remeasures/llava-00000.parquet")
    assert table["words"].to_pylist() == [4]


def test_texts_lie_beside_the_pictures_that_are_asked_for(tmp_path):
    put_texts(tmp_path, [("a", None), ("b", "B")])
    put_attempts(tmp_path, {1: "x", 0: "y"})
    attempts = pq.read_table(tmp_path / "captions/attempts/llava-00000.parquet")
    texts = pq.read_table(tmp_path / "manifests/plan/fetch/00000.parquet")
    assert attempts.schema.names == ATTEMPTED.names
    assert measure.texts_beside(attempts["uid"], texts) == (["b", "a"], ["B", None])
