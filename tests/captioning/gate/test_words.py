"""Words, scripts, repetitions."""

import pytest

from captioning.gate.words import is_spaceless, longest_loop, repeated_runs, unprintable, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A cat's paw, 3.5 km", ["a", "cat's", "paw", "3", "5", "km"]),
        ("snake_case x-ray", ["snake", "case", "x", "ray"]),
        ("猫が寝る", ["猫", "が", "寝", "る"]),
        ("iPhone手机", ["iphone", "手", "机"]),
        ("Кошка спит", ["кошка", "спит"]),
        ("…!", []),
        ("बिल्ली सो रही है", ["बिल्ली", "सो", "रही", "है"]),
        ("Cafe\u0301 مُحَمَّد", ["cafe\u0301", "مُحَمَّد"]),
    ],
)
def test_words_are_those_between_spaces_and_letters_where_there_are_none(text, words):
    assert words_of(text) == words


def test_scripts_without_spaces_are_told_by_most_letters():
    spaceless = ("猫が寝る", "แมวนอน", "ຫມາ", "ឆ្មាដេក", "ကြောင်", "བྱི་ལ", "iP手机在")
    assert [is_spaceless(text) for text in spaceless] == [True] * len(spaceless)
    assert [is_spaceless(text) for text in ("A cat", "Кошка", "고양이", "", "12", "A cat named 猫")] == [False] * 6


@pytest.mark.parametrize(
    ("text", "most", "share"),
    [
        ("a b c a b c", 2, 0.0),
        ("a b c x a b c y a b c", 3, 9 / 11),
        ("a", 0, 0.0),
    ],
)
def test_runs_that_come_again(text, most, share):
    assert repeated_runs(text.split(), 3) == (most, pytest.approx(share))


@pytest.mark.parametrize(
    ("text", "times"),
    [("very very very big", 3), ("a red car a red car a red car a", 3), ("a b c", 1), ("", 1), ("x y x y", 2)],
)
def test_loops_are_words_right_after_one_another(text, times):
    assert longest_loop(text.split(), 12) == times


def test_what_cannot_be_printed_is_counted():
    assert [unprintable(text) for text in ("ok\n\t", "a\x00b\x1b", "\ufffd", "\ue000", "café")] == [0, 2, 1, 1, 0]
