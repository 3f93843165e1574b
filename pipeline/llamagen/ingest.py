"""Read LlamaGen's codes into code shards: a text-to-image jsonl with its .npy files, or ImageNet's codes and labels."""

import bisect
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.files import digest_of, write_json, writing_table
from manifests.query import connect, files_sql
from manifests.shards import write_shard
from manifests.uid import UID, uid_hash_sql
from manifests.verify import is_run
from pipeline.inputs.jsonl import whole_text
from pipeline.llamagen.arrays import Fault, features_width, read_codes, read_features, read_label
from pipeline.llamagen.numbered import find_number
from pipeline.llamagen.output_folder import check_replaceable, replacing
from pipeline.llamagen.source import Entry, Labelled, Lines, Place, Source
from pipeline.recipes.schema import BESIDE_TIERS, RecipeError
from tokenize_shards.catalog import vq_spec
from tokenize_shards.packed_index import write_packed_index
from tokenize_shards.samples import Tokenizer, npy_bytes

NOTE = "import.json"
"""Beside the shards: what was read, dropped and kept. A folder that has it may be replaced by another import."""
NAMED = 5
"""So many files of each reason are named, the first in the order of the input."""
LOOKED_AT = 100
"""The width of T5 features is the one that most of the first so many files have, where none is given."""
T5_WIDTH = 2048
"""Flan-t5-xl's: what LlamaGen uses, and what is asked for where none of the files looked at can be read."""
PLACES = pa.schema(
    [("uid", UID), ("file", pa.int32()), ("line", pa.int64()), ("start", pa.int64()), ("length", pa.int32())]
)
BATCH = 10_000
SORT_MEMORY = "1GB"
MEMBER_BYTES = 1024
"""At most of a member beside its data: header and padding."""


@dataclass(frozen=True)
class ImportOptions:
    """Where LlamaGen's files are, and what made their codes: they do not say so themselves."""

    codes: Path
    to: Path
    vq: str
    fingerprint: str
    size: int  # pixels per side
    jsonl: Path | None = None
    labels: Path | None = None
    features: Path | None = None
    tier: str = "imported"
    shard_rows: int = 10_000
    shard_bytes: int = 1_000_000_000
    seed: int = 0
    stand_in: bool = False  # whether the tokenizer is one
    classes: int = 1000  # labels are below it
    t5_text: int = 0  # which text of a line the features are of
    t5_width: int | None = None  # None: what most files have

    @property
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer as samples name it. Raises ValueError for an unknown one or a size that does not fit
        it."""
        spec = vq_spec(self.vq)
        if self.size < 1 or self.size % spec.downsampling:
            raise RecipeError(f"import: size {self.size} is no multiple of {self.vq}'s {spec.downsampling} pixels")
        return Tokenizer(self.vq, self.fingerprint, spec.codebook_size, self.size // spec.downsampling, self.stand_in)

    @property
    def folder(self) -> Path:
        """Return where the shards go. Raises RecipeError for a tier that cannot be called so, and for a run's own
        folder."""
        if not self.tier or Path(self.tier).name != self.tier or self.tier.startswith("."):
            raise RecipeError(f"import: tier {self.tier!r} is no plain name")
        if self.tier in BESIDE_TIERS:
            raise RecipeError(f"import: tier {self.tier!r}: codes/{self.tier} is a folder of the pipeline's own")
        if is_run(self.to):
            raise RecipeError(
                f"import: {self.to} is a run folder, whose files its own records name; give another folder as --to"
            )
        return self.to / "codes" / self.tier


@dataclass
class Imported:
    """What an import read, and what became of it: rows_in = kept + dropped, by reason; files named by reason."""

    rows_in: int = 0
    kept: int = 0
    shards: int = 0
    with_t5: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    without_t5: Counter[str] = field(default_factory=Counter)  # of those kept
    _named: dict[str, list[tuple[tuple[int, int], str]]] = field(default_factory=dict)

    def drop(self, fault: Fault, order: tuple[int, int], name: str) -> None:
        """Count a picture that is left out, and name it among the first of its reason."""
        self.dropped[fault.reason] += 1
        self._name(fault, order, name)

    def lacks_t5(self, fault: Fault, order: tuple[int, int], name: str) -> None:
        """Count a picture that is kept without its text features."""
        self.without_t5[fault.reason] += 1
        self._name(fault, order, name)

    def _name(self, fault: Fault, order: tuple[int, int], name: str) -> None:
        named = self._named.setdefault(fault.reason, [])
        bisect.insort(named, (order, whole_text(f"{name} ({fault})" if str(fault) else name)))
        del named[NAMED:]

    @property
    def files(self) -> dict[str, list[str]]:
        """Return reason -> its first files, with what was got and wanted."""
        return {reason: [name for _, name in self._named[reason]] for reason in sorted(self._named)}

    def record(self) -> dict[str, Any]:
        """Return what `import.json` says: it depends on the files read alone."""
        counts = {"rows_in": self.rows_in, "kept": self.kept, "dropped": dict(sorted(self.dropped.items()))}
        features = {"with_t5": self.with_t5, "without_t5": dict(sorted(self.without_t5.items()))}
        return {**counts, **features, "shards": self.shards, "files": self.files}

    def lines(self) -> list[str]:
        """Return the same for people."""
        lines = [
            f"rows_in {self.rows_in:,}, kept {self.kept:,}, dropped {self.dropped.total():,}, shards {self.shards:,}"
        ]
        if self.with_t5 or self.without_t5:
            lines.append(f"with T5 features {self.with_t5:,}, without {self.without_t5.total():,}")
        for what, counts in (("dropped", self.dropped), ("kept without T5", self.without_t5)):
            lines += [
                f"  {what}: {reason} {count:,}, such as {'; '.join(self.files[reason])}"
                for reason, count in sorted(counts.items())
            ]
        return lines


def import_llamagen(options: ImportOptions) -> Imported:
    """Write TO/codes/TIER/NUMBER.tar in an order shuffled by hash(uid, seed), and their packed index; return counts of
    what was read and what was not there.

    rows_in = kept + dropped: a line or file that cannot be used is dropped under its reason and shifts no other.
    Features that cannot be used are left out and counted, their picture is kept. An earlier import is replaced once
    this one is whole. Memory holds one sample, an index and the sort's share, however long the input. Raises
    RecipeError where the folders hold nothing of the kind, and where nothing of it can be kept: then nothing is
    written.
    """
    tokenizer, folder = options.tokenizer, options.folder
    check_replaceable(folder, NOTE)
    source = (
        Labelled(options.codes, options.labels)
        if options.labels
        else Lines(options.jsonl or options.codes, options.codes)
    )
    done = Imported()
    with replacing(folder, NOTE) as staging:
        places = ordered(source.places(done), staging / ".order", options.seed)
        reader = Reader.looking_at(options, tokenizer, source, places)
        for number, samples in itertools.groupby(cut(reader.samples(done), options), lambda sample: sample[0]):
            write_shard(staging / f"{number:05d}.tar", (sample[1:] for sample in samples), index=True)
            done.shards += 1
        check_kept(options, done)
        write_packed_index(staging)
        write_json(
            staging / NOTE, {"layout": "llamagen", "tokenizer": options.vq, "size": options.size, **done.record()}
        )
    return done


def check_kept(options: ImportOptions, done: Imported) -> None:
    """Raise RecipeError for an import that holds nothing, with the reasons. Every picture must have been counted
    once."""
    if not done.rows_in:
        where = options.jsonl or options.codes
        raise RecipeError(
            f"import: nothing found below {where}; wanted lines in *.jsonl files, or *_codes and *_labels folders"
        )
    assert done.rows_in == done.kept + done.dropped.total(), done
    if not done.kept:
        raise RecipeError("\n".join(["import: nothing can be kept, so nothing was written", *done.lines()]))


def ordered(places: Iterable[Place], scratch: Path, seed: int) -> Iterator[Place]:
    """Yield places in the order of hash(uid, seed), those of one uid in the order of the input: sorted on disk, in
    bounded memory."""
    with writing_table(scratch / "places.parquet", PLACES) as table:
        waiting = iter(places)
        while rows := list(itertools.islice(waiting, BATCH)):
            table.write(pa.table(list(map(list, zip(*rows, strict=True))), schema=PLACES))
    with connect(scratch) as connection:
        connection.execute(f"SET memory_limit = '{SORT_MEMORY}'; SET threads = 2")
        columns = ", ".join(PLACES.names)
        query = (
            f"SELECT {columns} FROM {files_sql([scratch / 'places.parquet'])} ORDER BY {uid_hash_sql('uid', seed)},"
            " uid, file, line, start"
        )
        for batch in connection.execute(query).to_arrow_reader(BATCH):
            yield from map(Place, *(column.to_pylist() for column in batch.columns))
    shutil.rmtree(scratch)


@dataclass(frozen=True)
class Reader:
    """Makes samples of places that come in the packed order."""

    options: ImportOptions
    tokenizer: Tokenizer
    source: Source
    places: Iterator[Place]
    width: int  # of T5 features

    @classmethod
    def looking_at(
        cls, options: ImportOptions, tokenizer: Tokenizer, source: Source, places: Iterator[Place]
    ) -> "Reader":
        """Return a reader; its width is the option's, else what most of the first files have, the larger of two as
        frequent."""
        head = list(itertools.islice(places, LOOKED_AT)) if options.features and not options.t5_width else []
        seen = (
            [features_width(find_number(options.features, source.entry(place).codes)) for place in head]
            if options.features
            else []
        )
        widths = Counter(width for width in seen if width)
        usual = max(widths, key=lambda width: (widths[width], width), default=T5_WIDTH)
        return cls(options, tokenizer, source, itertools.chain(head, places), options.t5_width or usual)

    def samples(self, done: Imported) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield (key, members) of each picture that can be kept; of equal uids the first such."""
        last = b""
        for place in self.places:
            if place.uid == last:
                done.drop(Fault("exact_duplicate"), place[1:3], self.source.named(place))
            elif parts := self._sample(place, done):
                last = place.uid
                done.kept += 1
                yield place.uid.hex(), parts

    def _sample(self, place: Place, done: Imported) -> dict[str, bytes] | None:
        options, entry = self.options, self.source.entry(place)
        try:
            codes_KN = read_codes(find_number(options.codes, entry.codes), self.tokenizer)
            label = read_label(options.labels / entry.codes, options.classes) if options.labels else None
        except Fault as fault:
            done.drop(fault, place[1:3], entry.codes)
            return None
        note = self._note(entry, len(codes_KN), label)
        parts = {"codes.npy": npy_bytes(codes_KN)}
        if options.features:
            try:
                parts["t5.npy"], note["t5"] = self._features(find_number(options.features, entry.codes), entry)
                done.with_t5 += 1
            except Fault as fault:
                done.lacks_t5(fault, place[1:3], entry.codes)
        return {**parts, "json": json.dumps(note, ensure_ascii=False).encode()}

    def _features(self, path: Path, entry: Entry) -> tuple[bytes, dict[str, Any]]:
        position = self.options.t5_text
        if position >= len(entry.texts) or not entry.texts[position]:
            raise Fault("t5_without_text", f"text {position} is not there, or empty")
        numbers, dtype = read_features(path, self.width)
        return npy_bytes(numbers), {"source": entry.sources[position], "dtype": dtype, "tokens": len(numbers)}

    def _note(self, entry: Entry, crops: int, label: int | None) -> dict[str, Any]:
        tokenizer = self.tokenizer
        return {
            "uid": entry.uid.hex(),
            "url": entry.name,
            "captions": [{"source": source, "text": text} for source, text in entry.captions.items()],
            "tier": self.options.tier,
            "size": self.options.size,
            "grid": tokenizer.grid,
            "crops": [{"place": "as LlamaGen stored it", "number": number} for number in range(crops)],
            "tokenizer": tokenizer.record(),
            "parent_digest": digest_of(["llamagen", entry.name]),
            **({} if label is None else {"label": label}),
        }


def cut(
    samples: Iterable[tuple[str, dict[str, bytes]]], options: ImportOptions
) -> Iterator[tuple[int, str, dict[str, bytes]]]:
    """Yield (shard, key, members): shards hold `shard_rows` samples and `shard_bytes` bytes at most; a larger sample
    stands alone."""
    shard = rows = size = 0
    for key, parts in samples:
        weight = sum(len(data) + MEMBER_BYTES for data in parts.values())
        if rows and (rows == options.shard_rows or size + weight > options.shard_bytes):
            shard, rows, size = shard + 1, 0, 0
        rows, size = rows + 1, size + weight
        yield shard, key, parts
