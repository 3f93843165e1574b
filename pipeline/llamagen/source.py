"""List the pictures that LlamaGen's folders name, a jsonl line or an ImageNet number each, and find each again by its
place."""

import contextlib
import os
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from manifests.regular_files import open_plain
from manifests.uid import uid_of
from pipeline.inputs.coerce import without_mark
from pipeline.inputs.jsonl import DECODER, MAX_LINE, whole_text
from pipeline.llamagen.arrays import Fault
from pipeline.llamagen.numbered import NUMBER, arrays, beyond
from pipeline.recipes.schema import RecipeError

SOURCES = ("top_caption", "llava", "llava_short")
"""What the texts of a line are by position: blip, llava, llava_first (dataset/t2i.py, CAPTION_KEY)."""
TEXT_SOURCES = "text_sources"
"""Our own key in a line: where each text comes from, in the words of code shards. `pipeline export llamagen` writes
it."""


class Place(NamedTuple):
    """Where a picture is named: of jsonl file `file` line `line` from 0, its first byte and length; of ImageNet `line`
    is the number and `start` how many digits it is written with."""

    uid: bytes
    file: int
    line: int
    start: int = 0
    length: int = 0


@dataclass(frozen=True)
class Entry:
    """One picture: its name, its code file below the codes' folder, its texts by position and where each comes from."""

    name: str
    codes: str
    texts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def uid(self) -> bytes:
        """Return the uid: that of the name and the first text."""
        return uid_of(self.name, self.texts[0] if self.texts else None)

    @property
    def captions(self) -> dict[str, str]:
        """Return source -> text; a source that comes again (an export fills gaps so) and an empty text are left out."""
        captions: dict[str, str] = {}
        for source, text in zip(self.sources, self.texts, strict=True):
            if text:
                captions.setdefault(source, text)
        return captions


class Seen(Protocol):
    """Whoever counts: every picture that a source names, and those that go no further."""

    rows_in: int

    def drop(self, fault: Fault, order: tuple[int, int], name: str) -> None:
        """Count a picture that is left out."""


class Source(Protocol):
    """A set of pictures in LlamaGen's layout."""

    def places(self, seen: Seen) -> Iterator[Place]:
        """Yield the place of each picture that can be told apart; count all of them in `seen`."""

    def entry(self, place: Place) -> Entry:
        """Return what stands at a place."""

    def named(self, place: Place) -> str:
        """Return how a user finds a place."""


class Lines:
    """The lines of jsonl files. A line's codes are STEM/LINE.npy: STEM ends at the file name's first dot, lines count
    from 0.

    Codes that no line has are counted as missing_line: those of the files' stems, and where a folder of files is given
    what stands in other folders, and beside them, too.
    """

    def __init__(self, jsonl: Path, codes: Path | None = None) -> None:
        """Raises RecipeError for two files of one stem: LlamaGen would have written their codes over each other."""
        self.codes, self.is_folder = codes, jsonl.is_dir()
        found = [path for path in jsonl.rglob("*.jsonl") if not path.name.startswith(".")] if self.is_folder else []
        self.files = sorted(found) if self.is_folder else [jsonl]
        self.stems = [path.name.partition(".")[0] for path in self.files]
        twice = sorted(stem for stem in set(self.stems) if self.stems.count(stem) > 1)
        if twice:
            raise RecipeError(
                f"import: two jsonl files share the stem {twice[0]!r}: LlamaGen would have written their codes over"
                " each other"
            )

    def places(self, seen: Seen) -> Iterator[Place]:
        """Yield a place per line that can be read. Raises OSError for what is no plain file: a pipe has no writer."""
        for file, path in enumerate(self.files):
            with open_plain(path) as opened:
                count = yield from self._places(file, spans(opened), seen)
            if self.codes:
                self._count_beyond(seen, file, self.stems[file], count)
        if self.codes and self.is_folder:
            for place, folder in enumerate(_folders(self.codes, self.stems), len(self.files)):
                self._count_beyond(seen, place, folder, 0)

    def _count_beyond(self, seen: Seen, file: int, folder: str, count: int) -> None:
        """Count the codes of a folder that none of its `count` lines has."""
        for number, name in beyond((self.codes or Path()) / folder, count):
            seen.rows_in += 1
            fault = Fault("missing_line") if number >= 0 else Fault("bad_name", "wanted a whole number")
            seen.drop(fault, (file, number), f"{folder}/{name}" if folder else name)

    def _places(self, file: int, lines: Iterable[tuple[int, bytes]], seen: Seen) -> Generator[Place, None, int]:
        """Yield the places of a file's lines; return how many lines it has."""
        line = -1
        for line, (start, data) in enumerate(lines):
            seen.rows_in += 1
            try:
                uid = self._entry(file, line, data).uid
            except Fault as fault:
                seen.drop(fault, (file, line), f"{self.files[file].name}:{line}")
                continue
            yield Place(uid, file, line, start, len(data))
        return line + 1

    def entry(self, place: Place) -> Entry:
        """Read a line again. Raises RecipeError where it is another one now."""
        with open_plain(self.files[place.file]) as file:
            file.seek(place.start)
            data = file.read(place.length)
        with contextlib.suppress(Fault):
            entry = self._entry(place.file, place.line, data)
            if entry.uid == place.uid:
                return entry
        raise RecipeError(f"import: {self.named(place)} changed while it was read")

    def named(self, place: Place) -> str:
        """Return FILE:LINE, the line from 0."""
        return f"{self.files[place.file].name}:{place.line}"

    def _entry(self, file: int, line: int, data: bytes) -> Entry:
        values = read_line(data, first=line == 0)
        texts = tuple(without_mark(whole_text(text)) for text in values["text"])
        return Entry(
            whole_text(values["image_path"]), f"{self.stems[file]}/{line}.npy", texts, sources_of(values, len(texts))
        )


def _folders(codes: Path, stems: Collection[str]) -> list[str]:
    """Return the folders of codes that no file of lines names, "" for the codes' own."""
    with os.scandir(codes) as entries:
        return ["", *sorted(entry.name for entry in entries if entry.is_dir() and entry.name not in stems)]


def spans(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (first byte, line with its end) of a file; of a line longer than MAX_LINE its first MAX_LINE + 1 bytes."""
    start = 0
    while line := file.readline(MAX_LINE + 1):
        yield start, line
        start += len(line)
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)
            start += len(line)


def read_line(data: bytes, *, first: bool) -> dict[str, Any]:
    """Return a jsonl line's object, whose image_path and text can be used. Raises Fault: blank_line, broken_line or
    bad_text."""
    if not data.strip():
        raise Fault("blank_line")
    if len(data) > MAX_LINE:
        raise Fault("broken_line", f"longer than {MAX_LINE:,} bytes")
    try:
        values: dict[str, Any] = DECODER.decode(data.decode("utf-8-sig" if first else "utf-8"))
    except (ValueError, RecursionError) as error:
        raise Fault("broken_line", "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not JSON") from error
    name = values.get("image_path") if isinstance(values, dict) else None
    if not isinstance(name, str) or not name:
        raise Fault("broken_line", "no image_path")
    texts = values.get("text")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or not any(texts):
        raise Fault("bad_text", "wanted a list of texts, one of them not empty")
    return values


def sources_of(values: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Return where each text comes from: as our own export says it, else by position; beyond LlamaGen's three "text_3"
    and so on."""
    names = values.get(TEXT_SOURCES)
    if isinstance(names, list) and len(names) == count and all(isinstance(source, str) for source in names):
        return tuple(map(whole_text, names))
    return (*SOURCES[:count], *(f"text_{number}" for number in range(len(SOURCES), count)))


class Labelled:
    """ImageNet's pictures: CODES/I.npy and LABELS/I.npy, I a whole number, with or without zeros before it.

    A .npy whose name has more than a number is counted as bad_name; one without any digit is none of them. Of a place
    `start` is the number of digits.
    """

    def __init__(self, codes: Path, labels: Path) -> None:
        self.codes, self.labels = codes.absolute(), labels.absolute()

    def places(self, seen: Seen) -> Iterator[Place]:
        """Yield a place per code file; a label without one is counted as missing_codes."""
        for name in arrays(self.codes):
            seen.rows_in += 1
            if not NUMBER.fullmatch(name):
                seen.drop(Fault("bad_name", "wanted a whole number"), (0, -1), name)
                continue
            digits = len(name) - len(".npy")
            yield Place(self._entry(int(name[:digits]), digits).uid, 0, int(name[:digits]), digits)
        for name in arrays(self.labels):
            if NUMBER.fullmatch(name) and not (self.codes / name).exists():
                seen.rows_in += 1
                seen.drop(Fault("missing_codes"), (0, int(name.removesuffix(".npy"))), name)

    def entry(self, place: Place) -> Entry:
        """Return the picture's name and file."""
        return self._entry(place.line, place.start)

    def _entry(self, number: int, digits: int) -> Entry:
        return Entry(f"{self.codes.name}/{number}", f"{number:0{digits}d}.npy")

    def named(self, place: Place) -> str:
        """Return the file's name."""
        return f"{place.line:0{place.start}d}.npy"
