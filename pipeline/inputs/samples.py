"""Read the samples of a tar: what shares a key up to the first dot, as WebDataset has it; each becomes a row, whatever
it lacks.

Where members of one sample stand apart (all pictures, then all texts) the tar is read by key: that takes 64 bytes a
member, and nothing of their content. Otherwise 8 bytes a sample are held.
"""

import re
import tarfile
from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import IO, Any

import numpy as np

from filters.hamming import distinct
from pipeline.inputs.coerce import without_mark
from pipeline.inputs.jsonl import FAULT, decoded, from_json
from pipeline.inputs.tars import PICTURES, BrokenTar, content, entries, opened, split_name

MAX_NOTE = 16 << 20
"""Bytes of a .json or .txt member; a larger one counts as not there."""
NOTES = ("json", "txt")
OF_TAR = re.compile(r"__\w+__")
"""What WebDataset calls its notes on the tar as a whole; with a picture it is a sample like others."""
HELD_PARTS = 1_000
HELD_BYTES = 64 << 20
"""Names, and bytes of texts, held of one sample; beyond, a dot does not end the key in this tar: `v1.000001.jpg`."""
Row = dict[str, Any]


class Apart(Exception):
    """Members of one key do not stand together: the tar is to be read again, by key."""


@dataclass
class Part:
    """The members that share a name up to the last dot: the ending of the picture, the first of several, and what
    stands in the notes."""

    picture: str = ""
    more: list[str] = field(default_factory=list)
    notes: dict[str, bytes] = field(default_factory=dict)
    endings: list[str] = field(default_factory=list)


@dataclass
class Sample:
    """The members that share a key, by their names up to the last dot; `again`: another sample before has this key.

    `split`: no sample of the tar's, since its key ends at the last dot and not at the first.
    """

    key: str
    again: bool = False
    split: bool = False
    parts: dict[str, Part] = field(default_factory=dict)
    held: int = 0  # bytes of its notes

    @property
    def is_large(self) -> bool:
        """Tell whether it is more than one sample can be."""
        return len(self.parts) > HELD_PARTS or (len(self.parts) > 1 and self.held > HELD_BYTES)


def sample_rows(
    url: str,
    name: str,
    mapping: Mapping[str, str],
    *,
    by_key: bool = False,
    but: Collection[str] = (),
    seen: set[tuple[str, str]] | None = None,
) -> Iterator[Row]:
    """Yield a row per sample, by our columns and `key`, in order; where the tar is broken a last row says so.

    A sample without a URL goes by its path inside the data set, `name`/KEY.ENDING; `fault` says why it cannot be used.
    Samples whose keys are in `but` have none: (name, ending) of their members are added to `seen`, and what comes again
    has a row. Raises BrokenTar when nothing can be read, and after the last row Apart, where `by_key` would give other
    rows.
    """
    tar, file = opened(url)
    with tar, file:
        keys = array("Q")
        infos = _by_key(tar, file) if by_key else entries(tar, file)
        if but:
            infos = _others(infos, but, set() if seen is None else seen)
        for sample in _samples(tar, infos, keys):
            yield from ({"key": None, FAULT: "broken_tar"},) if sample is None else _rows(sample, name, mapping)
        if not by_key and len(distinct(np.asarray(keys, np.uint64))) < len(keys):
            raise Apart


def _others(
    infos: Iterator[tarfile.TarInfo], but: Collection[str], seen: set[tuple[str, str]]
) -> Iterator[tarfile.TarInfo]:
    """Yield the members of samples whose key is not in `but`, up to the first dot or the last, and what has the name of
    a member before it, of a picture the name up to the last dot."""
    pictured: set[str] = set()
    for info in infos:
        key, stem, ending = split_name(info.name)
        is_picture = ending in PICTURES and info.isreg() and stem in but
        if (key in but or stem in but) and (stem, ending) not in seen and not (is_picture and stem in pictured):
            seen.add((stem, ending))
            pictured.update((stem,) if is_picture else ())
        else:
            yield info


def _samples(tar: tarfile.TarFile, infos: Iterator[tarfile.TarInfo], keys: "array[int]") -> Iterator[Sample | None]:
    """Yield what there is of each sample, and None at the end where the tar is broken; `keys` gets a hash of each name
    that a sample begins with, and of its key."""
    sample = Sample("", split=True)
    try:
        for info in infos:
            key, stem, ending = split_name(info.name)
            part = sample.parts.get(stem)
            if key != sample.key or (part and ending in part.endings):
                same = key == sample.key
                yield sample
                sample, part = Sample(key, same and not sample.split, same and sample.split), None
                if not same:
                    keys.append(_hash(key))
            elif part is None and sample.is_large:
                yield Sample(key, split=True, parts=sample.parts)
                sample = Sample(key, split=True)
            if part is None:
                part = sample.parts[stem] = Part()
                if not sample.again and stem != key:
                    keys.append(_hash(stem))
            sample.held += _add(tar, info, part, ending)
        yield sample
    except BrokenTar:
        sample.parts = {stem: part for stem, part in sample.parts.items() if part.picture and part.notes}
        yield sample  # of the rest of its parts something is to come: they belong to what is lost
        yield None


def _add(tar: tarfile.TarFile, info: tarfile.TarInfo, part: Part, ending: str) -> int:
    """Note a member; return how many of its bytes are held."""
    part.endings.append(ending)
    if not info.isreg():
        return 0  # a link or a device holds no bytes
    if ending in PICTURES:
        if part.picture:
            part.more.append(ending)
        part.picture = part.picture or ending
    elif ending in NOTES and info.size <= MAX_NOTE:
        part.notes[ending] = content(tar, info)
        return len(part.notes[ending])
    return 0


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def _by_key(tar: tarfile.TarFile, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Yield the members of each key together, in the order in which keys come first; raise BrokenTar after what can be
    read."""
    keys, stems, offsets = array("Q"), array("Q"), array("q")
    broken: BrokenTar | None = None
    try:
        for info in entries(tar, file):
            key, stem, _ = split_name(info.name)
            keys.append(_hash(key))
            stems.append(_hash(stem))
            offsets.append(info.offset)
    except BrokenTar as error:
        broken = error
    order = np.lexsort((_first(stems), _first(keys)))  # stable: members of one name in their order
    for place in order:
        file.seek(offsets[place])
        yield tar.tarinfo.fromtarfile(tar)
    if broken:
        raise broken


def _first(hashes: "array[int]") -> Any:
    """Return of each hash the place at which it comes first."""
    _, first, number = np.unique(np.asarray(hashes, np.uint64), return_index=True, return_inverse=True)
    return first[number]


def _rows(sample: Sample, name: str, mapping: Mapping[str, str]) -> Iterator[Row]:
    """Yield the rows of a sample: one; where pictures bear a text of their own name, one for each of its names; where
    there is no text at all, one for each picture. Behind each stand those of further pictures of its name, which is
    the first one's: `missing_file`."""
    parts = sample.parts
    own, pictures = parts.get(sample.key, Part()), [stem for stem, part in parts.items() if part.picture]
    if not parts or (not pictures and OF_TAR.fullmatch(sample.key.rpartition("/")[2])):
        return
    for stem, part, fault in _chosen(sample, own, pictures):
        yield _row(stem, part, name, mapping, fault)
        for ending in part.more:
            yield _row(stem, Part(ending), name, mapping, "missing_file")


def _chosen(sample: Sample, own: Part, pictures: list[str]) -> Iterator[tuple[str, Part, str | None]]:
    """Yield (name, what a row says of it, its fault) of the parts of a sample that are rows."""
    parts = sample.parts
    if sample.again:
        yield sample.key, next(iter(parts.values())), "missing_file"
    elif sample.split or any(parts[stem].notes for stem in pictures if stem != sample.key):
        yield from ((stem, part, None) for stem, part in parts.items())
    elif own.picture:
        yield sample.key, replace(own, notes=_notes(sample)), None
    elif not pictures:
        noted = next((stem for stem, part in parts.items() if part.notes), next(iter(parts)))
        yield noted, parts[noted], None
    elif len(pictures) > 1 and (notes := _notes(sample)):
        noted = next(stem for stem, part in parts.items() if part.notes)
        yield noted, replace(parts[noted], notes=notes), "missing_file"
    else:
        for stem in pictures:
            yield stem, replace(parts[stem], notes=_notes(sample)), None


def _notes(sample: Sample) -> dict[str, bytes]:
    """Return what is said of a sample's one picture: by the sample's own name, else by names that no picture has
    (`n.left.jpg` and `n.caption.txt`), the first of each ending that holds something."""
    own = sample.parts.get(sample.key, Part())
    notes: dict[str, bytes] = {}
    for part in (own, *(part for part in sample.parts.values() if not part.picture)):
        for ending, data in part.notes.items():
            if not notes.get(ending, b"").strip():
                notes[ending] = data
    return notes


def _row(key: str, part: Part, name: str, mapping: Mapping[str, str], fault: str | None = None) -> Row:
    note = _note(part.notes.get("json", b"{}"))
    row = {ours: note.get(theirs) for ours, theirs in mapping.items()}
    if isinstance(row["text"], list) and row["text"]:
        row["text"] = row["text"][0]
    if not (isinstance(row["text"], str) and without_mark(row["text"]).strip()) and "txt" in part.notes:
        text = decoded(part.notes["txt"])
        row["text"] = text if text.strip() or not isinstance(row["text"], str) else row["text"]
    if not isinstance(row["url"], str) or not row["url"]:
        row["url"] = f"{name}/{key}.{part.picture or part.endings[0]}".rstrip(".")
    return {**row, "key": key, FAULT: fault or (None if part.picture else "missing_file")}


def _note(data: bytes) -> dict[str, Any]:
    note = from_json(decoded(data))
    return note if isinstance(note, dict) else {}
