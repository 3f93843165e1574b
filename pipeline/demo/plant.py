"""Plan the demo's rows: real pictures with their own words, and every kind of thing that is wrong with web data."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pipeline.demo import edits
from pipeline.demo.faults import CAPTIONS, FAULTS, bodies, encode, host
from pipeline.demo.foreign import FOREIGN
from pipeline.demo.pictures import Artwork, Emoji, render

SEED = 0
EMOJI_SIDE = 288
EMOJI_GROUPS = frozenset({"animals-nature", "food-drink", "travel-places", "objects", "activities", "extras-openmoji"})
"""Faces, flags and symbols stay out: many are near duplicates of one another by nature, which no truth table could
list."""
EMOJI_SERIES = ("flag", "clock", "moon", "-thirty", "oncoming", "banknote", "folder", "medical mask", "firefox")
KNOWN_ENGLISH = ("435809", "435844", "437881", "435868", "437549", "438417")
"""Artworks whose captions any detector takes for English: their second rows must get as far as the duplicate check."""
CLAIMED = (800, 600)
"""The size that rows with a lying or unknown size claim, in pixels."""


@dataclass(frozen=True)
class Counts:
    """How many pictures of each kind; `marks` is per strength and layout."""

    emoji: int = 184
    emoji_swapped: int = 16
    artworks: int = 52
    swapped: int = 12
    marks: int = 3
    bases: int = 8
    emoji_bases: int = 4


@dataclass(frozen=True)
class Row:
    """One row of the demo's table, and what the truth table knows of it.

    `target` is the rule or reason that the row was planted for; `exact`: that reason must come out (else a model
    judges, and precision and recall are measured). `group`: rows that show the same picture. `matched`: whether the
    text tells of the picture. `files` are what the server holds for it: host/path -> bytes.
    """

    kind: str
    url: str | None
    text: str | None
    size: tuple[int, int] | None = None
    picture: str = ""
    target: str | None = None
    exact: bool = True
    group: str | None = None
    matched: bool | None = None
    alpha: int | None = None
    tiled: bool | None = None
    values: dict[str, float] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Picture:
    """A picture with its own words, before anything is done to it; `source` names its host."""

    key: str
    source: str
    caption: str
    load: Callable[[], bytes]
    extension: str = "jpg"

    @property
    def name(self) -> str:
        """Return the picture's name in the truth table: source/key."""
        return f"{self.source}/{self.key}"

    def row(
        self, kind: str = "clean", text: str | None = None, data: bytes | None = None, source: str | None = None
    ) -> Row:
        """Return a row that shows this picture, or `data` made of it, at its source or another made-up host."""
        body = self.load() if data is None else data
        place = f"{host(source or self.source)}/{self.key}.{self.extension if data is None else 'jpg'}"
        size = edits.decode(body).size
        return Row(
            kind,
            f"http://{place}",
            self.caption if text is None else text,
            size,
            self.name,
            matched=True,
            files={place: body},
        )


def plan_rows(artworks: Sequence[Artwork], emoji: Sequence[Emoji], counts: Counts | None = None) -> list[Row]:
    """Return every row in the table's order, chosen and ordered by hashes. Without emoji the artworks stand in where
    they can."""
    counts = counts or Counts()
    museum = _dealt([_of_artwork(artwork) for artwork in artworks if artwork.key not in FOREIGN])
    drawings = _dealt([_of_emoji(drawing) for drawing in emoji if _is_apart(drawing)])
    foreign = [_of_artwork(artwork) for artwork in artworks if artwork.key in FOREIGN]
    known = [museum.pop(key) for key in KNOWN_ENGLISH if key in museum]
    faulty = _take(museum, 1)[0]
    rows = [
        *_known_rows(known),
        *_foreign_rows(foreign),
        *_fault_rows(faulty),
        *_text_rows(_take(museum, 3)),
        *_given_rows(_take(museum, 7)),
        *_size_rows(_take(museum, 9)),
        *_aspect_rows(_take(museum, 6)),
        *_marked_rows(_take(museum, 6 * counts.marks)),
        *_near_rows([*_take(museum, counts.bases), *_take(drawings, counts.emoji_bases)]),
        *_swapped_rows([*_take(museum, counts.swapped), *_take(drawings, counts.emoji_swapped)]),
        *_clean_rows(_take(museum, counts.artworks)),
        *_clean_rows(_take(drawings, counts.emoji)),
    ]
    return _second_ones([row for _, row in sorted(enumerate(rows), key=_row_hash)])


def _is_apart(emoji: Emoji) -> bool:
    words = emoji.caption.split()
    return (
        emoji.group in EMOJI_GROUPS and len(words) > 1 and not any(series in emoji.caption for series in EMOJI_SERIES)
    )


def _of_artwork(artwork: Artwork) -> Picture:
    return Picture(artwork.key, "met", artwork.caption, lambda: artwork.jpeg)


def _of_emoji(emoji: Emoji) -> Picture:
    as_jpeg = _hash(f"format:{emoji.key}") % 5 == 0  # the web mixes formats
    kind, extension = ("JPEG", "jpg") if as_jpeg else ("PNG", "png")
    return Picture(emoji.key, "openmoji", emoji.caption, lambda: encode(render(emoji.svg, EMOJI_SIDE), kind), extension)


def _hash(name: str) -> int:
    return int(hashlib.md5(f"{name}:{SEED}".encode(), usedforsecurity=False).hexdigest(), 16)


def _row_hash(numbered: tuple[int, Row]) -> int:
    number, row = numbered
    return _hash(f"row:{row.kind}:{row.url}:{number}")


def _dealt(pictures: Sequence[Picture]) -> dict[str, Picture]:
    return {picture.key: picture for picture in sorted(pictures, key=lambda picture: _hash(picture.name))}


def _take(pictures: dict[str, Picture], count: int) -> list[Picture]:
    return [pictures.pop(key) for key in list(pictures)[:count]]


def _clean_rows(pictures: Sequence[Picture]) -> Iterator[Row]:
    """Rows with nothing wrong: some of unknown size, some behind a redirect, some with values that the input
    brought."""
    for number, picture in enumerate(pictures):
        row = picture.row()
        if number % 10 == 3:
            row = replace(row, size=None)
        if number % 20 == 7 and row.url:
            row = replace(row, url=row.url.replace(host(picture.source), host(f"moved-{picture.source}")))
        if number % 16 == 5:
            row = replace(row, values={"similarity": 0.33, "pwatermark": 0.04, "punsafe": 0.001})
        yield row


def _known_rows(pictures: Sequence[Picture]) -> Iterator[Row]:
    """Clean rows that come twice: the second of each is made when the order is known."""
    for picture in pictures:
        yield replace(picture.row("repeated"), group=picture.name)


def _second_ones(rows: list[Row]) -> list[Row]:
    """Put the same URL and text again some way after each repeated row: those are the exact duplicates."""
    again = [
        replace(row, kind="exact-duplicate", target="exact_duplicate", files={})
        for row in rows
        if row.kind == "repeated"
    ]
    first = {row.url: number for number, row in enumerate(rows) if row.kind == "repeated"}
    places = [first[row.url] + 1 + _hash(f"again:{row.url}") % (len(rows) - first[row.url]) for row in again]
    for place, row in sorted(zip(places, again, strict=True), key=lambda pair: -pair[0]):
        rows.insert(place, row)
    return rows


def _foreign_rows(pictures: Sequence[Picture]) -> Iterator[Row]:
    for picture in pictures:
        yield replace(picture.row("foreign-caption", FOREIGN[picture.key]), target="language", exact=False)


def _fault_rows(picture: Picture) -> Iterator[Row]:
    """Rows of the address and answer faults; the files they share go with the first of each host."""
    files = bodies(edits.decode(picture.load()))
    number = 0
    for fault in FAULTS:
        for url in fault.urls:
            caption, size = CAPTIONS[number % len(CAPTIONS)], (640, 480)
            mine = {place: data for place, data in files.items() if url and url.endswith(place)}
            yield Row(fault.kind, url, caption, size, target=fault.reason, files=mine)
            number += 1


def _text_rows(pictures: Sequence[Picture]) -> Iterator[Row]:
    for picture in pictures:
        yield replace(picture.row("no-text"), text=None, target="missing_value", matched=None, files={})
    texts = {"empty": "", "blank": "   ", "letter": "x", "marks": "??", "word": "ok"}
    for name, text in texts.items():
        yield Row("short-text", f"http://{host('met')}/untitled-{name}.jpg", text, (640, 480), target="text")


def _given_rows(pictures: Sequence[Picture]) -> Iterator[Row]:
    """Rows whose input values already say no, so that no scorer needs to run."""
    given = (
        [("watermark", "pwatermark", 0.97)] * 3
        + [("nsfw", "punsafe", 0.99)] * 2
        + [("similarity", "similarity", 0.05)] * 2
    )
    for picture, (target, column, value) in zip(pictures, given, strict=True):
        row = picture.row(f"given-{target}", "A painting in the collection of the museum, photographed in colour")
        yield replace(row, target=target, matched=None, values={column: value})


def _size_rows(pictures: Sequence[Picture]) -> Iterator[Row]:
    """Thumbnails: five with their true size, four that claim another or none and are found out when decoded."""
    for number, picture in enumerate(pictures):
        row = picture.row(
            "small",
            "A small preview of a painting in the collection of the museum",
            edits.thumbnail(edits.decode(picture.load()), 36 + 2 * number),
        )
        claim = (row.size, CLAIMED, None)[0 if number < 5 else 1 + number % 2]
        yield replace(
            row, kind="small" if number < 5 else "small-claims-large", size=claim, target="size", matched=None
        )


def _aspect_rows(pictures: Sequence[Picture]) -> Iterator[Row]:
    """Strips five times as wide as high; half of them claim an ordinary size."""
    for number, picture in enumerate(pictures):
        row = picture.row(
            "strip",
            "A wide detail of a painting in the collection of the museum",
            edits.strip(edits.decode(picture.load())),
        )
        lies = number % 2 == 1
        yield replace(
            row,
            kind="strip-claims-ordinary" if lies else "strip",
            size=CLAIMED if lies else row.size,
            target="aspect",
            matched=None,
        )


def _marked_rows(pictures: Sequence[Picture]) -> Iterator[Row]:
    """A stock agency's mark at three strengths, centred and tiled."""
    for number, picture in enumerate(pictures):
        alpha, tiled = (90, 140, 200)[number % 3], number // 3 % 2 == 1
        word = edits.MARKS[number // 6 % len(edits.MARKS)]
        row = picture.row(
            "stock-mark", data=edits.stamped(edits.decode(picture.load()), word, alpha, tiled), source="stock"
        )
        yield replace(row, target="watermark", exact=False, alpha=alpha, tiled=tiled)


def _near_rows(pictures: Sequence[Picture]) -> Iterator[Row]:
    """Pictures that others posted again: the same bytes, re-encoded, made smaller, cropped a little."""
    copies: list[tuple[str, Callable[[Picture], bytes]]] = [
        ("same-bytes", lambda one: one.load()),
        ("reencoded", lambda one: edits.reencoded(edits.decode(one.load()))),
        ("smaller", lambda one: edits.smaller(edits.decode(one.load()))),
        ("cropped", lambda one: edits.cropped(edits.decode(one.load()))),
    ]
    for number, picture in enumerate(pictures):
        yield replace(picture.row("original"), group=picture.name)
        for step in range(1 + number % 2):
            kind, edit = copies[(number + 2 * step) % len(copies)]
            row = picture.row(f"copy-{kind}", data=edit(picture), source=kind)
            yield replace(row, target="near_duplicate", exact=False, group=picture.name)


def _swapped_rows(pictures: Sequence[Picture]) -> Iterator[Row]:
    """Every picture gets the words of the next one, in an order that a hash shuffles over both sources."""
    pictures = sorted(pictures, key=lambda one: _hash(f"swap:{one.name}"))
    for number, picture in enumerate(pictures):
        text = pictures[(number + 1) % len(pictures)].caption
        yield replace(picture.row("swapped-caption", text), target="similarity", exact=False, matched=False)
