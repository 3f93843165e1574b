"""Rows as cards: kept ones by tier, dropped ones by reason, near duplicates by group."""

import pytest

from manifests.reasons import GROUPS
from pipeline.report.cards import (
    GROUP_NAMES,
    Address,
    Card,
    ShownScore,
    card,
    dropped_cards,
    duplicate_cards,
    kept_cards,
    sign_of,
    small_card,
)
from pipeline.report.examples import Example, Examples, Score
from pipeline.report.facts import Facts, Fates, Stages
from pipeline.report.pictures import Picture


def kept(uid, **given):
    return Example(uid, f"words of {uid}", f"http://h.test/{uid}.jpg", "kept", **{"jpeg": b"j", **given})


def dropped(uid, reason, text="", url="http://h.test/x.jpg", jpeg=b""):
    return Example(uid, text, url, "dropped", reason, jpeg=jpeg)


def facts(*, tiers=None, reasons=None, **examples):
    return Facts("run", Stages(fates=Fates(9, 3, reasons or {}, tiers or {})), examples=Examples(**examples))


def test_every_group_of_reasons_has_a_name():
    assert tuple(GROUP_NAMES) == GROUPS


def test_signs_tell_where_a_number_came_from():
    signs = [sign_of(origin) for origin in ("clip (stand-in weights)", "input", "clip", "")]
    assert signs == ["\u2020", "*", "", ""]


def test_a_card_shows_five_numbers_and_eighty_letters_beside_the_picture():
    scores = tuple(Score(f"s{n}", float(n), "input") for n in range(7))
    row = Example("u", "x" * 100, "", "kept", scores=scores, jpeg=b"j", recaption="recaptioned: a cat")
    whole = card(row)
    assert whole.scores == tuple(ShownScore(f"s{n}", float(n), "*") for n in range(5))
    assert (whole.picture, whole.text) == (Picture(b"j", "x" * 80), "x" * 100)
    assert (whole.recaption, whole.fate, whole.survivor) == ("recaptioned: a cat", "", False)
    assert small_card(row) == Card(Picture(b"j", "x" * 70), "x" * 70)
    assert card(dropped("u", "dns")).picture is None


def test_a_row_of_two_tiers_is_shown_once():
    one, two = kept("one"), kept("two")
    shown = kept_cards(facts(tiers={"pretrain": 1500}, kept={"pretrain": (one, two), "finetune": (two,)}))
    assert [(tier.tier, tier.pairs, [each.text for each in tier.cards]) for tier in shown.tiers] == [
        ("pretrain", 1500, ["words of one", "words of two"]),
        ("finetune", 1, []),
    ]


def test_twelve_cards_a_tier_and_the_next_tier_has_the_rest():
    rows = tuple(kept(str(number)) for number in range(14))
    shown = kept_cards(facts(kept={"a": rows, "b": rows}))
    assert [len(tier.cards) for tier in shown.tiers] == [12, 2]


@pytest.mark.parametrize(
    ("origins", "stand_in", "given"),
    [
        ((), False, False),
        (("clip",), False, False),
        (("input",), False, True),
        (("a (stand-in weights)",), True, False),
    ],
)
def test_notes_are_for_numbers_that_are_there(origins, stand_in, given):
    row = kept("one", scores=tuple(Score("s", 1.0, origin) for origin in origins))
    shown = kept_cards(facts(kept={"a": (row,)}))
    assert (shown.stand_in_scores, shown.input_scores) == (stand_in, given)


def test_nothing_kept_nothing_dropped_no_groups():
    assert (kept_cards(facts()), dropped_cards(facts()), duplicate_cards(facts())) == (None, None, ())


def test_reasons_with_pictures_have_cards_the_others_addresses():
    rows = {
        "corrupt": (dropped("a", "corrupt", "a cat", jpeg=b"j"), dropped("b", "corrupt")),
        "http_503": tuple(dropped(str(n), "http_503", "not shown", "u" * 200) for n in range(4)),
        "bad_url": (dropped("c", "bad_url", "y" * 90, "javascript:alert(1)"),),
        "text": (dropped("d", "text", ""),),
    }
    shown = dropped_cards(
        facts(reasons={"http_503": 40, "corrupt": 2, "bad_url": 1, "text": 3, "tls": 5}, dropped=rows)
    )
    (corrupt,) = shown.seen
    assert (corrupt.reason, corrupt.rows, corrupt.group, corrupt.addresses) == ("corrupt", 2, "picture", ())
    assert corrupt.cards == (Card(Picture(b"j", "a cat"), "a cat"),)
    assert [(one.reason, one.rows, one.group, one.addresses) for one in shown.unseen] == [
        ("http_503", 40, "fetch", (Address("u" * 110, None),) * 3),
        ("bad_url", 1, "input", (Address("javascript:alert(1)", "y" * 70),)),
        ("text", 3, "rule", (Address("http://h.test/x.jpg", ""),)),
        ("tls", 5, "fetch", ()),
    ]


GROUPED = {
    **dict.fromkeys(
        ("bad_url", "missing_value", "broken_row_group", "broken_line", "broken_tar", "not_in_table"), "input"
    ),
    **dict.fromkeys(("missing_file", "blocked_path", "robots", "http_404"), "fetch"),
    **dict.fromkeys(("size", "a_rule_of_mine"), "rule"),
}


def test_rows_that_were_never_read_are_not_of_a_rule():
    """broken_line, broken_tar, missing_file and blocked_path were shown as rules."""
    shown = dropped_cards(facts(reasons=dict.fromkeys(GROUPED, 1), dropped={}))
    assert {one.reason: one.group for one in shown.unseen} == GROUPED


def test_groups_say_each_fate_and_frame_the_survivor():
    group = (kept("one"), dropped("two", "near_duplicate", "twin", jpeg=b"k"))
    lonely = (kept("three"), dropped("four", "near_duplicate"))
    assert duplicate_cards(facts(groups=(group, lonely))) == (
        (
            Card(Picture(b"j", "words of one"), "words of one", fate="kept", survivor=True),
            Card(Picture(b"k", "twin"), "twin", fate="near_duplicate"),
        ),
    )
