"""Stored measures, thresholds and actions say which words count; nothing is measured again for it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioning.corpus.words import caption_keys
from manifests.schema import schema
from manifests.tables import CAPTIONED, REPEATS
from pipeline.steps.judge import JudgeStep
from pipeline.steps.measure import Measure, Remeasure
from tests.support.attempts import do_step, put_attempts, put_texts, recipe_of
from tests.support.records import put_table, uid

TEXTS = [("alt a", "top 0"), ("alt b", None), (None, None), ("alt d", None), ("alt e", "Top four. It ends.")]
FIRST = {0: "A fine cat sits. It looks up.", 1: "cat", 2: "cat", 3: None, 4: "As an AI I cannot say."}
SECOND = {1: "a large cat sits here", 2: "cat again", 4: "I'm sorry, I am only a model."}


@pytest.fixture
def root(tmp_path):
    """Return a run folder of five pictures with measured attempts: 1, 2 and 4 were asked twice, 3 is no picture."""
    put_texts(tmp_path, TEXTS)
    put_attempts(tmp_path, FIRST)
    put_attempts(tmp_path, SECOND, second=True)
    do_step(Measure(recipe_of(), tmp_path))
    do_step(Remeasure(recipe_of(), tmp_path))
    return tmp_path


def settled(root, gate=None, **caption):
    """Return (record, rows by number) of the judged shard."""
    (record,) = do_step(JudgeStep(recipe_of(gate, **caption), root))
    table = pq.read_table(root / record.files[0].path)
    assert table.schema.equals(CAPTIONED)
    return record, {row["uid"][0]: row for row in table.to_pylist()}


def test_each_row_has_the_words_that_count_and_every_attempt(root):
    record, rows = settled(root, {"after_retry": "fall_back"})
    assert {number: (row["caption"], row["origin"], row["action"], row["reason"]) for number, row in rows.items()} == {
        0: ("A fine cat sits. It looks up.", "attempt_1", "keep", None),
        1: ("a large cat sits here", "attempt_2", "keep", None),
        2: (None, None, "drop_caption", "caption_too_short"),  # there is nothing to fall back on
        3: (None, None, None, "not_an_image"),
        4: ("Top four. It ends.", "top_caption", "fall_back", None),
    }
    assert [rows[n]["short_caption"] for n in (0, 1, 4)] == ["A fine cat sits.", "a large cat sits here", "Top four."]
    assert [(one["text"], one["flags"], one["seed"]) for one in rows[4]["attempts"]] == [
        (FIRST[4], ["refusal"], 0),
        (SECOND[4], ["refusal"], 1),
    ]
    assert [len(rows[n]["attempts"]) for n in range(5)] == [1, 2, 2, 1, 2]
    assert (rows[1]["flags"], rows[2]["flags"], rows[3]["flags"]) == ([], ["too_short"], [])
    assert (rows[1]["model"], rows[4]["model"], rows[4]["prompt"]) == ("words", None, None)
    assert (record.rows_in, record.rows_out) == (5, 3)
    assert record.dropped == {"caption_too_short": 1, "not_an_image": 1}


def test_new_thresholds_give_other_words_from_the_same_measures(root):
    measures = (root / "captions/measures/llava-00000.parquet").read_bytes()
    _, rows = settled(root, {"min_words": 0, "actions": {"refusal": "keep"}})
    assert [rows[n]["origin"] for n in (0, 1, 2, 4)] == ["attempt_1"] * 4
    assert rows[4]["flags"] == ["refusal"]
    assert (root / "captions/measures/llava-00000.parquet").read_bytes() == measures
    _, rows = settled(root, {"actions": {"too_short": "drop_caption"}})
    assert rows[1]["reason"] == "caption_too_short"


def test_what_fits_stands_beside_a_caption_that_does_not(tmp_path, tiny_t5):
    put_texts(tmp_path, [("alt", None)])
    put_attempts(tmp_path, {0: "A cat sits. It looks up. It is red."})
    recipe = recipe_of({"max_tokens": 30})
    values = recipe.pretokenize.model_copy(update={"t5_weights": str(tiny_t5)})
    recipe = recipe.model_copy(update={"pretokenize": values})
    do_step(Measure(recipe, tmp_path))
    tokens = pq.read_table(tmp_path / "captions/measures/llava-00000.parquet")["sentence_tokens"].to_pylist()[0]
    assert tokens[1] <= 30 < tokens[2]
    (record,) = do_step(JudgeStep(recipe, tmp_path))
    (row,) = pq.read_table(tmp_path / record.files[0].path).to_pylist()
    assert (row["fit_caption"], row["flags"], row["action"]) == ("A cat sits. It looks up.", ["over_tokens"], "keep")


def test_a_caption_that_many_pictures_share_is_flagged_where_the_recipe_bounds_it(root):
    key = caption_keys(pa.array([FIRST[0]])).to_pylist()[0]
    put_table(
        root, "repeats", "captions/repeats/00000.parquet", [{"captioner": "llava", "key": key, "pictures": 3}], REPEATS
    )
    assert settled(root)[1][0]["flags"] == []
    _, rows = settled(root, audit={"max_repeats": 2})
    assert (rows[0]["flags"], rows[0]["reason"]) == (["repeated_in_corpus"], "caption_repeated_in_corpus")
    assert settled(root, audit={"max_repeats": 3})[1][0]["flags"] == []


def test_the_manifest_counts_attempts_flags_actions_and_origins(root):
    settled(root)
    facts = JudgeStep(recipe_of(), root).facts()["captioners"]["llava"]
    assert facts == {
        "pictures": 5,
        "captions": 2,
        "attempts": 8,
        "second_attempts": 3,
        "prompt_tokens": 0,
        "tokens": 24,
        "flags": {"too_short": 1, "refusal": 1},
        "actions": {"keep": 2, "drop_caption": 2},
        "origins": {"attempt_1": 1, "attempt_2": 1},
        "same_words_again": "exact on one GPU type",
    }


def test_prompts_and_seeds_of_second_attempts_are_not_in_its_key(root):
    keys = {
        JudgeStep(recipe_of(gate), root).own_key
        for gate in ({}, {"retry_seed": 4}, {"retry_prompt": "one_sentence_v1"})
    }
    assert len(keys) == 1
    assert JudgeStep(recipe_of({"min_words": 4}), root).own_key not in keys
    nobody = recipe_of().model_copy(
        update={"tier": {"fine": recipe_of().tier["fine"].model_copy(update={"caption": None})}}
    )
    assert JudgeStep(nobody, root).settings() == {}


def test_rows_are_those_of_the_attempts_in_their_order(root):
    _, rows = settled(root)
    assert list(rows) == list(FIRST)
    assert [rows[n]["uid"] for n in rows] == [uid(n) for n in FIRST]
    assert schema("uid").field("uid").type == CAPTIONED.field("uid").type
