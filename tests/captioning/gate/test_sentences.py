"""Sentences of a caption: where each ends, and the first one on a line of its own."""

import pytest

from captioning.gate.sentences import first_sentence, one_line, sentence_ends


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
