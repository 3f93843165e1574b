"""Flags of captions and the first sentence, on captions written by hand."""

import pytest

from captioning.quality import FLAGS, QualityLimits, caption_flags, first_sentence

GOOD = "The image features a red bicycle leaning against a brick wall. A small dog sits beside it."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GOOD, "The image features a red bicycle leaning against a brick wall."),
        ("A view of St. Paul and the river. Boats pass.", "A view of St. Paul and the river."),
        ("The tower is 3.5 metres tall. It leans.", "The tower is 3.5 metres tall."),
        (
            "Many fruits, e.g. apples and pears, lie there. One is cut.",
            "Many fruits, e.g. apples and pears, lie there.",
        ),
        ("Tools (e.g. Dremels) lie about. A hand is seen.", "Tools (e.g. Dremels) lie about."),
        ("A portrait of J. R. Smith by A. Jones. He smiles.", "A portrait of J. R. Smith by A. Jones."),
        ("A flag of the U.S. The pole is white.", "A flag of the U.S."),
        ("A flag of the U.S. Navy on a pole. It waves.", "A flag of the U.S. Navy on a pole."),
        ("Pens, paper, etc. The desk is brown.", "Pens, paper, etc."),
        ("Bus No. 5 stops. People wait.", "Bus No. 5 stops."),
        ('A sign reads "Stop!" in red. A car waits.', 'A sign reads "Stop!" in red.'),
        ('The sign says "Go." A car moves.', 'The sign says "Go."'),
        ("Wait... what is this? A cat.", "Wait... what is this?"),
        ("A cat\n\nIt sleeps.", "A cat"),
        ("A cat\nsleeps. It dreams.", "A cat sleeps."),
        ("no end mark here", "no end mark here"),
        ("visit example.com today. Thanks.", "visit example.com today."),
        ("\u4e00\u53ea\u732b\u3002\u5b83\u7761\u4e86\u3002", "\u4e00\u53ea\u732b\u3002"),
        ("  \n ", ""),
        ("", ""),
    ],
)
def test_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (GOOD, ()),
        ("", ("empty", "too_short")),
        (" \n", ("empty", "too_short")),
        ("A cat.", ("too_short",)),
        ("A black cat.", ()),
        ("a dog and a cat, a dog and a bird, a dog and a mouse", ("repeated",)),
        ("the the the the the", ("repeated",)),
        ("the the the the", ()),
        ("I cannot see the image you mean.", ("refusal",)),
        ("I can\u2019t describe this picture.", ("refusal",)),
        ("As an AI language model, I see a cat.", ("refusal",)),
        ("A stick serves as an aid for walking.", ()),
        ("Hawaii cannot be seen from here.", ()),
        ("A cat\x00sat on a mat.", ("non_printable",)),
        ("A cat \ufffd on a mat.", ("non_printable",)),
        ("A line.\nAnother\tline \U0001f469\u200d\U0001f373.", ()),
    ],
)
def test_flags(text: str, flags: tuple[str, ...]) -> None:
    assert caption_flags(text) == flags


def test_truncated_needs_the_limit_and_an_open_sentence() -> None:
    cut = "The image features a red bicycle leaning against a"
    assert caption_flags(cut) == ()
    assert caption_flags(cut, at_limit=True) == ("truncated",)
    assert caption_flags(GOOD, at_limit=True) == ()
    assert caption_flags('He says "yes."', at_limit=True) == ()


def test_limits_are_thresholds() -> None:
    assert caption_flags("a black cat", limits=QualityLimits(min_words=4)) == ("too_short",)
    assert caption_flags("a cat a cat", limits=QualityLimits(run_words=2, repeats=2)) == ("repeated",)


def test_flags_come_in_the_order_of_their_list() -> None:
    flags = caption_flags("I cannot I cannot I cannot I cannot \x01", at_limit=True)
    assert flags == ("repeated", "refusal", "truncated", "non_printable")
    assert list(flags) == [flag for flag in FLAGS if flag in flags]
