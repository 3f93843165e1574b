"""Runs of eight words are found whatever names and numbers stand in them, and counted in bounded memory."""

import random

import numpy as np
import pyarrow as pa
import pytest

from captioning.corpus.skeletons import LENGTH, Frequent, grams, is_shift, masked, shown
from captioning.corpus.words import Words


def words_of(*texts):
    return Words.of(pa.array(texts, pa.string()))


def skeletons(*texts):
    """Return the set of keys of each text."""
    keys, rows, _ = grams(words_of(*texts))
    return [set(keys[rows == number].tolist()) for number in range(len(texts))]


def test_names_and_numbers_do_not_count():
    one, other, third = skeletons(
        "The image shows Anna Smith and 12 red cats on a mat.",
        "the image shows Bob and 3.5 red cats on a mat",
        "The image shows a man and 12 red cats on a mat.",
    )
    assert one == other
    assert len(one) == 4
    assert one != third


def test_what_is_shown_is_the_masked_run():
    words = words_of("short", "The image shows Anna Smith and 12 red cats on a mat.", None)
    _, rows, places = grams(words)
    assert rows.tolist() == [1] * 4
    assert shown(words, int(places[0])) == ["the", "image", "shows", "<name>", "and", "<number>", "red", "cats"]
    assert shown(words, int(places[-1])) == ["<name>", "and", "<number>", "red", "cats", "on", "a", "mat"]


def test_a_sentence_begins_with_a_capital_and_i_is_no_name():
    words = words_of("One. Two three I 4 Five")
    assert len(masked(words)[1]) == 6
    assert shown(words, 0) == ["one", "two", "three", "i", "<number>", "<name>"]


@pytest.mark.parametrize("texts", [[], [None], ["", "a b c"], ["1 2 3 4 5 6 7 8 9"], ["A B C D E F G H I J"]])
def test_texts_without_eight_masked_words_have_none(texts):
    assert len(grams(words_of(*texts))[0]) == 0


def test_no_run_goes_over_the_end_of_a_text():
    keys, rows, _ = grams(words_of("a b c d e f g", "h i j k l m n o", "p"))
    assert (len(keys), rows.tolist()) == (1, [1])


def batches(texts, size):
    for start in range(0, len(texts), size):
        keys, rows, places = grams(words_of(*texts[start : start + size]))
        yield keys, rows, places * 0 + rows + start


def test_what_is_frequent_is_counted_once_a_text_and_never_too_high():
    draw = random.Random(1)
    names = [f"w{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(600)]
    fixed = "the picture holds a large old red house with a small door"
    texts = [" ".join(draw.choices(names, k=30)) + f" {fixed} {fixed}" * (draw.random() < 0.2) for _ in range(5000)]
    wanted = sum(fixed in text for text in texts)
    found = Frequent()
    for keys, rows, examples in batches(texts, 500):
        found.add(keys, rows, examples)
    top = list(found.top())
    assert [count + missed >= wanted >= count for count, missed, _ in top[:5]] == [True] * 5
    assert all(fixed in texts[example] for _, _, example in top[:5])
    assert len(found.keys) < 5000  # of 130,000 runs


def test_what_first_comes_late_may_be_counted_too_low_by_one_a_batch_at_most():
    found = Frequent()
    one = np.array([7], np.uint64)
    for number in range(10):
        keys = np.concatenate([one, np.arange(number * 9 + 100, number * 9 + 109, dtype=np.uint64)])
        if number >= 4:
            keys = np.concatenate([one, keys])
        texts = np.arange(len(keys))
        found.add(keys, texts, texts)
    ((count, missed, _),) = found.top()
    assert count <= 16 <= count + missed
    assert missed <= 10


def test_empty_batches_count_for_nothing():
    found = Frequent()
    nothing = np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    found.add(*nothing)
    assert list(found.top()) == []


def cut(text):
    return tuple(text.split())


def test_parts_of_one_longer_run_are_told():
    words = cut("the image shows a red cat on a mat in a room")
    runs = [words[start : start + LENGTH] for start in range(5)]
    assert all(is_shift(runs[0], run) for run in runs)
    assert not is_shift(runs[0], cut("a photograph of two men at a table"))
