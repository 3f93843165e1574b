"""The table of an audit: each figure with its interval, strangers' words on one printable line."""

import random

import pytest

from captioning.corpus.intervals import UNKNOWN, Difference, share
from pipeline.analysis.caption_audit import audit
from pipeline.analysis.caption_table import change, lines, percent, short
from tests.support.caption_runs import Row, filler, write_captions


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    draw = random.Random(3)
    rows = [
        Row(
            n,
            text=f"a woman {filler(draw, 4)}" if n % 2 else filler(draw, 4),
            captions={"llava": "USER: there\nis no image"} if n < 40 else {"llava": f"a man {filler(draw, 12)}"},
            reason=None,
            aesthetic=5.0,
            more={"flags": ["refusal"] if n < 40 else []},
        )
        for n in range(100)
    ]
    return "\n".join(lines(audit(write_captions(tmp_path_factory.mktemp("run"), rows)), 3))


def test_every_part_is_there(table):
    for words in (
        "llava: 100 rows, 100 captions in its own words",
        "flag      refusal                           40",
        "captions that stand beside pictures of different pHash: 1, together 40.00% (30.94% to 49.80%) of all",
        "40 pictures",
        "USER: there is no image",
        "there is no image",
        "leaks of templates and prompts: 40.00%",
        "groups of people in 100 pictures with alt text and caption",
        "* women",
        "100.00% (92.87% to 100.00%)",
        "filter: 100 rows with a known alt text; of 100 whose picture came 100.00% (96.30% to 100.00%) are kept",
    ):
        assert words in table, words


def test_no_line_breaks_and_no_control_characters():
    assert short("a\nb\x1b[31m\u202e c") == "a b [31m  c"
    assert len(short("x" * 500)) == 72


def test_numbers():
    assert percent(share(0, 0)) == "-"
    assert percent(share(1, 4)) == "25.00% (4.56% to 69.94%)"
    assert change(UNKNOWN) == "-"
    assert change(Difference(0.1, 0.05, 0.15)) == "+10.00 points (+5.00 to +15.00)"
    assert change(Difference(-0.1, -0.2, 0.0), "") == "-0.10 (-0.20 to +0.00)"
