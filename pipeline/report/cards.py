"""Lay out rows as cards: what the templates of kept rows, dropped rows and near duplicates read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from manifests.reasons import group_of
from pipeline.report.examples import Example
from pipeline.report.facts import STAND_IN, Facts
from pipeline.report.pictures import Picture

GROUP_NAMES = {"input": "input", "fetch": "fetch", "image": "picture", "rules": "rule", "set": "duplicates and set"}
TEXT_AT_FAULT = ("input", "rules")
"""Groups of reasons where the words of a row without a picture are shown beside its address."""
STAND_IN_SIGN, INPUT_SIGN = "\u2020", "*"
SHOWN_SCORES = 5
CARDS = 12
ADDRESSES = 3
ALT_LETTERS, SHORT_LETTERS, ADDRESS_LETTERS = 80, 70, 110
"""Letters of the words that stand for a picture, of a small card's text, of an address."""


@dataclass(frozen=True)
class ShownScore:
    """A number under a picture. `sign`: STAND_IN_SIGN, INPUT_SIGN or nothing."""

    name: str
    value: float
    sign: str


@dataclass(frozen=True)
class Card:
    """One row: its picture where there is one, its words, its numbers.

    `fate`: `kept` or a reason, where the card says it. `survivor`: framed as the one of its group that stays.
    """

    picture: Picture | None
    text: str
    recaption: str = ""
    scores: tuple[ShownScore, ...] = ()
    fate: str = ""
    survivor: bool = False


@dataclass(frozen=True)
class TierCards:
    """Kept rows of one tier of `pairs` pairs; no cards where all of them stand under an earlier tier."""

    tier: str
    pairs: int
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Kept:
    """Kept rows by tier, and whether any number of theirs comes from stand-in weights or from the input."""

    tiers: tuple[TierCards, ...]
    stand_in_scores: bool
    input_scores: bool


@dataclass(frozen=True)
class Address:
    """A row without a picture: the start of its URL, and of its words where these may be at fault."""

    url: str
    words: str | None


@dataclass(frozen=True)
class DroppedReason:
    """The rows of one reason: cards where pictures came, else addresses."""

    reason: str
    rows: int
    group: str
    cards: tuple[Card, ...]
    addresses: tuple[Address, ...]


@dataclass(frozen=True)
class Dropped:
    """Reasons with pictures to show, and those without, each in the order of the run's accounts."""

    seen: tuple[DroppedReason, ...]
    unseen: tuple[DroppedReason, ...]


def kept_cards(facts: Facts) -> Kept | None:
    """Return at most CARDS rows of each tier, each row once; None where there are none at all."""
    if not facts.examples.kept:
        return None
    signs = {sign_of(score.origin) for rows in facts.examples.kept.values() for row in rows for score in row.scores}
    return Kept(tuple(_tiers(facts)), STAND_IN_SIGN in signs, INPUT_SIGN in signs)


def _tiers(facts: Facts) -> Iterator[TierCards]:
    seen = set[str]()
    for tier, rows in facts.examples.kept.items():
        fresh = [row for row in rows if row.uid not in seen][:CARDS]
        seen |= {row.uid for row in fresh}
        yield TierCards(tier, facts.fates.tiers.get(tier, len(rows)), tuple(map(card, fresh)))


def dropped_cards(facts: Facts) -> Dropped | None:
    """Return a few rows of each reason; None where nothing was dropped."""
    reasons = [_reason(name, rows, facts.examples.dropped.get(name, ())) for name, rows in facts.fates.dropped.items()]
    if not reasons:
        return None
    return Dropped(
        tuple(reason for reason in reasons if reason.cards), tuple(reason for reason in reasons if not reason.cards)
    )


def _reason(name: str, count: int, rows: Sequence[Example]) -> DroppedReason:
    cards = tuple(small_card(row) for row in rows if row.jpeg)
    addresses = () if cards else tuple(map(_address, rows[:ADDRESSES]))
    return DroppedReason(name, count, GROUP_NAMES[group_of(name)], cards, addresses)


def _address(row: Example) -> Address:
    words = row.text[:SHORT_LETTERS] if group_of(row.reason) in TEXT_AT_FAULT else None
    return Address(row.url[:ADDRESS_LETTERS], words)


def duplicate_cards(facts: Facts) -> tuple[tuple[Card, ...], ...]:
    """Return the groups of near duplicates of which at least two pictures can be shown, each card with its fate."""
    groups = [group for group in facts.examples.groups if sum(bool(row.jpeg) for row in group) > 1]
    return tuple(tuple(map(_with_fate, group)) for group in groups)


def _with_fate(row: Example) -> Card:
    is_kept = row.fate == "kept"
    return replace(small_card(row), fate="kept" if is_kept else row.reason, survivor=is_kept)


def card(row: Example) -> Card:
    """Return the whole card of a row, with at most SHOWN_SCORES numbers."""
    scores = tuple(ShownScore(score.name, score.value, sign_of(score.origin)) for score in row.scores[:SHOWN_SCORES])
    return Card(_picture(row, ALT_LETTERS), row.text, row.recaption, scores)


def small_card(row: Example) -> Card:
    """Return a card with a short text and no numbers."""
    return Card(_picture(row, SHORT_LETTERS), row.text[:SHORT_LETTERS])


def _picture(row: Example, letters: int) -> Picture | None:
    return Picture(row.jpeg, row.text[:letters]) if row.jpeg else None


def sign_of(origin: str) -> str:
    """Return the sign that tells where a number came from: stand-in weights, the input, or nothing for a model."""
    return STAND_IN_SIGN if STAND_IN in origin else INPUT_SIGN if origin == "input" else ""
