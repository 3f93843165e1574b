"""Bounds on words and characters of a text, white space around it left out."""

from filters.text import Text
from tests.support.filter_verdicts import verdicts


def test_words_and_characters_are_counted():
    texts = ["a cat", " a  ca ", "catcat", "", "  \n", "cats and dogs", "été à", None]
    got = verdicts({"use": "text", "min_words": 2, "min_chars": 5, "max_chars": 8}, text=texts)
    assert got == [True, True, False, False, False, False, True, None]  # "a  ca" has 5 characters, "cats and dogs" 13


def test_the_defaults_are_datacomp_s():
    assert (Text().min_words, Text().min_chars, Text().max_chars) == (3, 6, None)
    assert verdicts({"use": "text"}, text=["a b cd", "a b c", "a b", "ab cdefg"]) == [True, False, False, False]


def test_characters_are_no_bytes():
    """Four ideographs are twelve bytes of UTF-8 and one word: there is no white space in them."""
    rule = {"use": "text", "min_words": 1, "min_chars": 4, "max_chars": 4}
    assert verdicts(rule, text=["東京の猫", "東京猫", "東京の黒猫"]) == [True, False, False]


def test_bounds_are_kept_when_equal_without_white_space_around():
    rule = {"use": "text", "min_words": 1, "min_chars": 1, "max_chars": 3}
    assert verdicts(rule, text=["\u00a0abc\t\n", "abcd", " . "]) == [True, False, True]


def test_no_break_and_ideographic_spaces_separate_words():
    texts = [
        "two\u00a0words",
        "two\u3000words",
        "two\u2003words",
        "two\u0085words",
        "two\x0bwords",
        "one\u200bword",
        "one",
    ]
    assert [len(text.split()) for text in texts] == [2, 2, 2, 2, 2, 1, 1]  # as Python sees them
    got = verdicts({"use": "text", "min_words": 2, "min_chars": 1}, text=texts)
    assert got == [True] * 5 + [False] * 2
