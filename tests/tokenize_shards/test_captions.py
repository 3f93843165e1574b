"""Captions cleaned as LlamaGen cleans them, substitution by substitution, each worked out by hand."""

import json
import random
import warnings

import ftfy
import pytest

from tests.support.vq_oracle import ORACLE, needs_oracle
from tokenize_shards.captions import _clean_once, clean_caption


@needs_oracle
def test_cleaning_equals_the_reference() -> None:
    cases = json.loads((ORACLE / "caption_cleaning.json").read_text())
    assert len(cases) == 20
    for case in cases:
        assert clean_caption(case["caption"]) == case["cleaned"]


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("Buy at www.shop.co/item/5 now", "buy at now"),
        ("see https://a.org/b?c=d", "see ?c=d"),  # the path goes, the query stays
        ("mail me@site.com", "mail me"),  # taken for a nickname
        ("<b>Bold</b> &amp; <i>thin</i>", "bold thin"),
        ("host 10.0.0.255 up", "host up"),
        ("IMG_0012.JPG", ""),
        ("a-b-c-d", "a-b-c-d"),  # three separators stay
        ("a-b-c_d-e", "a b c d e"),  # four do not
        ("worldwide free shipping on jc6640 and jc6640vc", "on and"),
        ("free download free pdf images", ""),
        ("click for more cats", "cats"),
        ("4x6 12.5\u00d720 3\u04457 box", "box"),  # Latin x, times, Cyrillic kha
        ("size : large", "size: large"),
        ("#12 #123456 #1234 1234567", "1234"),  # four digits after # are neither short nor long; only the sign goes
        ("\uff21\uff22 \ufb01ne", "ab fine"),  # wide letters and ligatures
        ("one - two —— three", "one - two - three"),
        ("'quoted'", "quoted"),
        (".hidden", ""),
        ("%C3%A9t%C3%A9+x", "été x"),
    ],
)
def test_cleaning_by_hand(caption: str, cleaned: str) -> None:
    assert clean_caption(caption) == cleaned


def test_cleaning_runs_twice() -> None:
    assert clean_caption("_-x") == "x"  # one mark at the start goes per pass


def test_cleaning_never_warns_or_raises() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for caption in (
            "",
            "<",
            "<![x[",
            "<!DOCTYPE",
            "<?xml version='1.0'?><a/>",
            "&",
            "&#xffffffff;",
            "\x00",
            "http://a.com/<b>",
            "/etc/x&y",
        ):
            assert isinstance(clean_caption(caption), str)


def test_what_is_passed_by_for_speed_changes_nothing() -> None:
    """ftfy leaves printable ASCII without an ampersand as it is, and a caption that one pass leaves needs no other."""
    draw = random.Random(3)
    printable = [chr(code) for code in range(32, 127) if chr(code) != "&"]
    for _ in range(300):
        text = "".join(draw.choices(printable, k=draw.randrange(60)))
        assert ftfy.fix_text(text) == text
        assert clean_caption(text) == _clean_once(_clean_once(text))
