"""Flags from measures and thresholds alone."""

import pytest

from captioning.gate.config import FLAGS, GateConfig
from captioning.gate.flags import flag_table
from captioning.gate.measures import Said, Tools, measure

SAYS = {
    "A red cat sits on a mat.": [],
    "": ["empty", "too_short"],
    "A cat": ["too_short"],
    "As an AI I cannot see it.": ["refusal"],
    "a big dog a big dog a big dog": ["repeated"],
    "A cat \ufffd sits.": ["non_printable"],
}


def flags_of(texts, gate=None, tools=None, limits=None):
    nothing = [None] * len(texts)
    said = Said(texts, limits or [False] * len(texts), nothing, nothing, [()] * len(texts))
    table = flag_table(measure(said, tools or Tools()), gate or GateConfig())
    assert tuple(table) == FLAGS
    return [[flag for flag, has in table.items() if has[row]] for row in range(len(texts))]


def test_each_text_has_its_flags():
    assert dict(zip(SAYS, flags_of(list(SAYS)), strict=True)) == SAYS
    assert flags_of([None]) == [[]]


def test_what_stopped_at_the_limit_is_truncated_within_a_sentence():
    texts = ["A cat sits on a", "A cat sits here."]
    assert flags_of(texts, limits=[True, True]) == [["truncated"], []]


@pytest.mark.parametrize(("most", "flags"), [(5, []), (4, ["over_tokens"])])
def test_tokens_are_bounded_where_they_are_counted(most, flags):
    tools = Tools(tokens=lambda texts: [len(text.split()) for text in texts])
    assert flags_of(["A cat sits right here."], GateConfig(max_tokens=most), tools) == [flags]


@pytest.mark.parametrize(
    ("wanted", "least", "flags"),
    [((), 0.5, []), (("en",), 0.5, ["wrong_language"]), (("en",), 0.9, []), (("de",), 0, [])],
)
def test_another_language_is_one_that_is_sure(wanted, least, flags):
    tools = Tools(languages=lambda texts: (["de"] * len(texts), [0.8] * len(texts)))
    gate = GateConfig(languages=wanted, min_language_score=least)
    assert flags_of(["Eine Katze sitzt hier."], gate, tools) == [flags]
