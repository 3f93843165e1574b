"""filters/fetch: optout.py: X-Robots-Tag with and without agents, tdm-reservation, tdmrep.json."""

import json

import pytest

from filters.fetch.optout import OPT_OUTS, Receipt, TdmRules, header_refusal
from filters.fetch.robots import agent_names

NAMES = agent_names("tessera-t2i/0.1 (me@my.site)")


@pytest.mark.parametrize(
    "value", ["noai", "NoImageAI", "noml", "noindex", "noimageindex", "none", "nofollow, noai", "follow,noindex"]
)
def test_words_that_refuse(value: str) -> None:
    assert header_refusal([value], [], NAMES, OPT_OUTS) == Receipt("X-Robots-Tag", value)


@pytest.mark.parametrize(
    "value", ["", "all", "index, follow", "nofollow", "noarchive", "max-image-preview: none", "noaiming", "no ai"]
)
def test_words_that_do_not(value: str) -> None:
    assert header_refusal([value], [], NAMES, OPT_OUTS) is None


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        (["tessera: noai"], True),
        (["Tessera-T2I : NOAI, nofollow"], True),
        (["*: noai"], True),
        (["otherbot: noindex, nofollow"], False),
        (["otherbot: noindex", "noai"], True),
        (["otherbot: noai", "tessera: all"], False),
        (["otherbot: nofollow, tessera: noai"], True),
        (["tessera: nofollow, otherbot: noai"], False),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], True),
        (["max-snippet: 5, noai"], True),
        (["google bot: noai"], False),
    ],
)
def test_agents(values: list[str], refused: bool) -> None:
    assert (header_refusal(values, [], NAMES, OPT_OUTS) is not None) == refused


def test_tdm_reservation_and_what_is_obeyed() -> None:
    assert header_refusal([], ["1"], NAMES, OPT_OUTS) == Receipt("tdm-reservation", "1")
    assert header_refusal([], ["0"], NAMES, OPT_OUTS) is None
    assert header_refusal(["noindex"], ["1"], NAMES, ["noai"]) is None
    assert header_refusal(["noindex, noai"], [], NAMES, ["noai"]) == Receipt("X-Robots-Tag", "noindex, noai")


@pytest.mark.parametrize("value", ["noai; noimageai", "index noai", "follow; noimageai noai"])
def test_directives_with_other_separators_refuse(value: str) -> None:
    assert header_refusal([value], [], NAMES, ["noai"]) == Receipt("X-Robots-Tag", value)
    assert header_refusal([], ["1, 1"], NAMES, OPT_OUTS) == Receipt("tdm-reservation", "1, 1")


def test_a_receipt_is_one_short_printable_line() -> None:
    receipt = header_refusal(["noai, \x00\x1b[31m\udcff" + "x" * 5000], [], NAMES, OPT_OUTS)
    assert receipt is not None
    assert receipt.value.startswith("noai, ??[31m?xxx")
    assert len(receipt.value) == 200


def tdm(entries: object, path: str) -> str | None:
    return TdmRules.of(json.dumps(entries).encode()).refusal(path)


def test_tdmrep_rules() -> None:
    rules = [
        {"location": "/", "tdm-reservation": 1},
        {"location": "/free/", "tdm-reservation": 0},
        {"location": "/free/*.png", "tdm-reservation": 1},
    ]
    assert tdm(rules, "/a.jpg") == "location: /, tdm-reservation: 1"
    assert tdm(rules, "/free/a.jpg") is None
    assert tdm(rules, "/free/a.png") == "location: /free/*.png, tdm-reservation: 1"
    assert (
        tdm([{"location": "https://h.example/x", "tdm-reservation": "1"}], "/x/y") == "location: /x, tdm-reservation: 1"
    )
    assert tdm({"tdm-reservation": 1}, "/y") == "location: /, tdm-reservation: 1"  # seen in the wild: no list, no place


@pytest.mark.parametrize("half", ["\\ud800", "\\udc41", "\\udfff", "/\\udcff"])
def test_half_a_pair_in_a_tdmrep_hides_no_rule_and_ends_nothing(half: str) -> None:
    text = f'[{{"location": "{half}", "tdm-reservation": 1}}, {{"location": "/a", "tdm-reservation": 1}}]'.encode()
    assert TdmRules.of(text).refusal("/a") == "location: /a, tdm-reservation: 1"
    assert TdmRules.of(text).refusal("/b") is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        b'[{"location": 3, "tdm-reservation": 1}, 7, {"location": "/"}]',
        b"\xff\xfe\x00",
        b"null",
    ],
)
def test_what_is_no_tdmrep_reserves_nothing(text: bytes) -> None:
    assert TdmRules.of(text).refusal("/a") is None
