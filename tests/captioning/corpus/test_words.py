"""Texts are cut into words all at once, as a loop over each would; equal captions share a key."""

import hashlib
import random
import re

import numpy as np
import pyarrow as pa
import pytest

from captioning.corpus.words import Words, caption_keys, plain


def words_of(*texts):
    words = Words.of(pa.array(texts, pa.string()))
    return [[words.unique[n] for n in words.index[a:b]] for a, b in zip(words.first, words.first[1:], strict=False)]


def test_letters_and_digits_make_words_and_texts_never_run_into_each_other():
    assert words_of("A cat", "sits", None, "", "…", "on St. Paul's 3.5 km") == [
        ["A", "cat"],
        ["sits"],
        [],
        [],
        [],
        ["on", "St", "Paul", "s", "3", "5", "km"],
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("日本語 cat。", ["日", "本", "語", "cat"]),
        ("\uff46\uff55\uff4c\uff4c\u3000\uff57\uff49\uff44\uff54\uff48", ["full", "width"]),
        ("“Ünïcode\u2019s” — café", ["Ünïcode", "s", "café"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("dark-skinned\x00man\u200bhere 🐈cat", ["dark", "skinned", "man", "here", "cat"]),
        ("\u202eevil\u202c \ufffd", ["evil"]),
    ],
)
def test_words_beyond_ascii(text, words):
    assert words_of(text) == [words]


def test_a_word_is_initial_at_the_start_and_after_the_end_of_a_sentence():
    words = Words.of(pa.array(["The cat sat. It slept\nThen, oh! Well", "Again 。And"]))
    assert [words.unique[n] for n in words.index[words.initial]] == ["The", "It", "Then", "Well", "Again", "And"]


def test_a_slice_of_a_table_is_cut_as_it_stands():
    whole = pa.array(["zero", "one two", None, "ünï"])
    words = Words.of(whole.slice(1, 3))
    assert words.counts.tolist() == [2, 0, 1]
    assert len(Words.of(pa.array([], pa.string()))) == 0


def test_many_random_texts_are_cut_as_one_by_one():
    draw = random.Random(3)
    letters = "abcXYZ019 .,'-\n!é日"
    texts = ["".join(draw.choices(letters, k=draw.randrange(60))) for _ in range(500)]
    assert words_of(*texts) == [re.findall(r"[^\W_]+", plain(text)) for text in texts]


def test_equal_captions_share_a_key_whatever_their_case_blanks_and_marks():
    keys = caption_keys(
        pa.array(["A cat, on a mat.", "a CAT on\na mat", "a cat on a mat 2", None, " …", "Ünï", "ÜNÏ!"])
    )
    same, again, other, none, blank, letters, capitals = keys.to_pylist()
    assert same == again != other
    assert (none, blank) == (None, None)
    assert letters == capitals


def test_keys_do_not_depend_on_what_stands_beside():
    texts = ["one two three", "ünï", "four"]
    alone = [caption_keys(pa.array([text])).to_pylist()[0] for text in texts]
    assert caption_keys(pa.array(texts)).to_pylist() == alone
    assert alone[0] == int.from_bytes(hashlib.blake2b(b"onetwothree", digest_size=8).digest(), "big")


def test_runs_at_the_start_and_the_end_of_a_text():
    words = Words.of(pa.array(["A red cat sits here", "a RED cat lies here", "sits here", "", "A red cat"]))
    start, end = words.run_keys(3), words.run_keys(2, closing=True)
    assert start[0] == start[1] == start[4] != start[2]
    assert end[0] == end[2] != end[1]
    assert start[3] == end[3] == 0
    assert len(np.unique(start)) == 3
