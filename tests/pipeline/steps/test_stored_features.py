"""What is stored of a pair's captions: which one, and as many features as the T5 makes of it."""

from types import SimpleNamespace

import duckdb
import pyarrow as pa
import pytest

from manifests.tables import SAID, SAID_BEFORE
from pipeline.loading.captions import drawable
from pipeline.steps.stored_features import AT_ONCE, StoredFeatures
from tokenize_shards.samples import captions_of
from tokenize_shards.text import MAX_TOKENS, T5Features


def stored(caption="alt", weights=""):
    values = SimpleNamespace(t5="precomputed", t5_caption=caption, t5_weights=weights)
    return StoredFeatures(SimpleNamespace(pretokenize=values))


def said(captioner, caption, short, fit=None):
    made = {"model": "m", "prompt": "p", "origin": "attempt_1", "flags": []}
    return {"captioner": captioner, "caption": caption, "short_caption": short, "fit_caption": fit, **made}


ROWS = [
    {"text": "alt one", "top_caption": "top one", "said": [said("llava", "long one", "short one", "fits")]},
    {"text": "", "top_caption": None, "said": None},
    {"text": None, "top_caption": "", "said": []},
    {"text": "alt two", "top_caption": None, "said": [said("other", "long two", "short two")]},
    {"text": "it's", "top_caption": "x", "said": [said("other", "a", "b"), said("llava", "last", None)]},
]


def found_of(name):
    table = pa.table({"text": [row["text"] for row in ROWS], "top_caption": [row["top_caption"] for row in ROWS]})
    table = table.append_column("said", pa.array([row["said"] for row in ROWS], SAID))
    with duckdb.connect() as connection:
        connection.register("rows", table)
        return [one for (one,) in connection.execute(f"SELECT {stored(name).caption_sql} FROM rows").fetchall()]


@pytest.mark.parametrize("name", ["alt", "top_caption", "llava", "llava_short", "llava_fit", "other", "other_short"])
def test_the_caption_is_the_one_that_training_finds_under_this_name(name):
    found = found_of(name)
    samples = [[(one["source"], one["text"]) for one in captions_of(row)] for row in ROWS]
    assert found == [dict(drawable(captions)).get(name) for captions in samples]
    assert any(found)


def test_what_fits_is_the_whole_caption_where_all_of_it_does():
    assert found_of("llava_fit") == ["fits", None, None, None, "last"]


def test_of_captions_that_were_not_judged_the_whole_one_is_taken_for_what_fits():
    assert stored("llava_fit").caption_from(SAID_BEFORE) == stored("llava").caption_sql
    assert stored("llava_short").caption_from(SAID_BEFORE) == stored("llava_short").caption_sql


def test_recaption_stands_for_the_first_captioner_that_has_a_caption_of_the_picture():
    assert found_of("recaption") == ["long one", None, None, "long two", "a"]
    assert found_of("recaption_short") == ["short one", None, None, "short two", "b"]


def test_tokens_are_counted_by_the_tokenizer_alone_as_many_as_there_are_features(tiny_t5):
    texts = [
        "a cat",
        None,
        "",
        "Two <b>dogs</b> &amp; a http://x.com/y",
        "letters " * 200,
        "\u6f22",
        *["b" * 5] * AT_ONCE,
    ]
    counts = stored(weights=str(tiny_t5)).tokens(pa.array(texts))
    there = [text for text in texts[:7] if text]
    features = T5Features(str(tiny_t5)).features(there)
    assert [count for count in counts[:7].tolist() if count] == [len(one) for one in features]
    assert counts[:3].tolist() == [7, 0, 0]  # four letters, what stands for a space before each word, the end
    assert counts[4] == MAX_TOKENS
    assert len(counts) == len(texts)
    assert len(set(counts[6:].tolist())) == 1
    assert stored(weights="nowhere").tokens(pa.array([None, ""], pa.string())).tolist() == [0, 0]


def test_without_stored_features_no_weights_are_needed():
    online = StoredFeatures(SimpleNamespace(pretokenize=SimpleNamespace(t5="online", t5_weights="nowhere")))
    assert (online.wanted, online.weights()) == (False, ())
