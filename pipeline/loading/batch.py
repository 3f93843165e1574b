"""Turn places in shards into a batch: members read and held against their CRC-32, ranges checked, crop and caption
drawn."""

import itertools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from manifests.files import parsing
from pipeline.loading.captions import Drawing, is_of
from pipeline.loading.files import ShardFiles
from pipeline.loading.joins import Beside
from pipeline.loading.order import Numbers, Whole, draws
from pipeline.loading.window import Window
from tokenize_shards.packed_index import MEMBERS
from tokenize_shards.samples import Features, LoaderError, Tokenizer, npy_bytes, read_npy, unpack_numbers

SPAN = float(1 << 64)
DECODE = json.JSONDecoder().decode
"""json.loads without its question of which encoding the bytes have: it takes a third of the time."""
HEAD = 128
"""Bytes of the head of a .npy file of codes, version 1.0."""


@dataclass(frozen=True)
class Batch:
    """One process's share of one step: B samples, a crop and a caption of each drawn."""

    step: int
    epoch_B: Whole
    uids_B: list[str]
    codes_BN: Whole
    captions_B: list[str]
    """The text; of samples with classes the number, as text."""
    sources_B: list[str]
    """Which caption was drawn: alt, top_caption, a captioner's name…; empty where there was none."""
    features_B: list[Features | None] = field(repr=False)
    """Stored text features (n, C) of just that caption, None where there are none."""

    def __len__(self) -> int:
        return len(self.uids_B)


@dataclass(frozen=True)
class Expected:
    """What every sample must be, and what is drawn of it."""

    tokenizer: Tokenizer
    drawing: Drawing
    seed: int
    classes: int = 0
    """With classes a sample's label is below it and stands as its caption; 0: captions are drawn."""
    width: int | None = None
    """Width of a stored feature; None: any."""


@dataclass(frozen=True)
class Slots:
    """Some consecutive samples of a window, which one epoch reads."""

    window: Window
    samples: slice
    epoch: int


class _Sample(NamedTuple):
    """One sample that is read: its shard, where its members lie, and what is drawn of it."""

    shard: int
    codes: tuple[int, int, int]
    """Offset, length and CRC-32."""
    json: tuple[int, int, int]
    t5: tuple[int, int, int]
    uid: str
    crop: int
    caption: float
    """Where among the weights of the captions, 0..1."""
    number: int
    """Its place in the window."""


def _samples(slots: Slots, seed: int) -> Iterator[_Sample]:
    """Yield the samples of some slots; whole columns become Python numbers at once."""
    window, samples, words = slots.window, slots.samples, (slots.epoch, seed)
    uid_B2 = window.uid_N2[samples]
    places = [
        list(
            zip(*(column[samples].tolist() for column in (place.offset_N, place.length_N, place.crc32_N)), strict=True)
        )
        for place in (window.places[member] for member in MEMBERS)
    ]
    crops = draws(uid_B2, "crop", *words).tolist()
    captions = (draws(uid_B2, "caption", *words) / SPAN).tolist()
    columns = (
        window.shard_N[samples].tolist(),
        *places,
        _hex(uid_B2),
        crops,
        captions,
        range(samples.start, samples.stop),
    )
    return itertools.starmap(_Sample, zip(*columns, strict=True))


class Reader:
    """Reads batches of one set of shards."""

    def __init__(self, files: ShardFiles, expected: Expected) -> None:
        self.files, self.expected = files, expected
        self._record = expected.tokenizer.record()
        self._tokens = expected.tokenizer.grid**2
        self._at: _Sample | None = None
        self._beside: Beside | None = None

    def __str__(self) -> str:
        """Return the shard and sample that are being read, for messages."""
        return f"shard {self.files.shards[self._at.shard].path}, sample {self._at.uid}" if self._at else "no sample"

    def read(self, slots: Slots) -> Batch:
        """Return the samples, in their order. Raises LoaderError that names shard and sample, OSError."""
        count = slots.samples.stop - slots.samples.start
        codes_BN = np.empty((count, self._tokens), np.int64)
        uids, captions, sources, features = [], [], [], list[Features | None]()
        self._beside = slots.window.beside
        with parsing(self, "cannot be read", LoaderError):
            for place, sample in enumerate(_samples(slots, self.expected.seed)):
                self._at = sample
                note = self._note(sample, codes_BN[place])
                source, text = self._caption(sample, note)
                uids.append(sample.uid)
                captions.append(text)
                sources.append(source)
                features.append(self._features(sample, note, text) if source else None)
        most_B, codebook = codes_BN.max(axis=1, initial=0), self.expected.tokenizer.codebook
        if most_B.max(initial=0) >= codebook:
            place = int(most_B.argmax())
            path = self.files.shards[int(slots.window.shard_N[slots.samples][place])].path
            raise LoaderError(
                f"shard {path}, sample {uids[place]}: code {most_B[place]} is outside the codebook of {codebook}"
            )
        return Batch(0, np.full(count, slots.epoch), uids, codes_BN, captions, sources, features)

    def _note(self, sample: _Sample, codes_N: Whole) -> dict[str, Any]:
        """Fill in the codes of the drawn crop, and return the sample's JSON."""
        (codes_at, codes_length, codes_crc), (json_at, json_length, json_crc) = sample.codes, sample.json
        if not codes_length or not json_length:
            raise self._fault(f"has no {'json' if codes_length else 'codes.npy'}")
        start = min(codes_at, json_at)
        data = self.files.read(sample.shard, start, max(codes_at + codes_length, json_at + json_length) - start)
        codes, text = data[codes_at - start :][:codes_length], data[json_at - start :][:json_length]
        if zlib.crc32(codes) != codes_crc or zlib.crc32(text) != json_crc:
            member = "json" if zlib.crc32(codes) == codes_crc else "codes.npy"
            raise self._fault(f"its {member} is damaged: not the CRC-32 of the index; run `make pretokenize` again")
        note: dict[str, Any] = DECODE(text.decode())
        crops = self._fill(codes_N, codes, sample.crop)
        if note["tokenizer"] != self._record or note["grid"] != self.expected.tokenizer.grid:
            raise self._fault(
                f"made by {note['tokenizer']} with a grid of {note['grid']}, the first sample of all by"
                f" {self.expected.tokenizer}: run `make pretokenize` again"
            )
        if (noted := len(note.get("crops") or ()) or crops) != crops:
            raise self._fault(f"{crops} code arrays, but {noted} crops are noted")
        return note

    def _fill(self, codes_N: Whole, data: bytes, drawn: int) -> int:
        """Put one crop's codes in their place; return how many crops there are."""
        tokens = self._tokens
        crops, rest = divmod(len(data) - HEAD, 2 * tokens)
        if not rest and crops > 0 and data[:HEAD] == _head(crops, tokens):
            codes_N[:] = np.frombuffer(data, "<u2", tokens, HEAD + 2 * tokens * (drawn % crops))
            return crops
        codes_KN = read_npy(data)
        if codes_KN.dtype != np.uint16 or codes_KN.ndim != 2 or not len(codes_KN) or codes_KN.shape[1] != tokens:
            raise self._fault(f"codes are {codes_KN.dtype} {codes_KN.shape}, wanted uint16 (crops, {tokens})")
        codes_N[:] = codes_KN[drawn % len(codes_KN)]
        return len(codes_KN)

    def _caption(self, sample: _Sample, note: dict[str, Any]) -> tuple[str, str]:
        """Return (source, text) of what is drawn; of samples with classes ("", number)."""
        if self.expected.classes:
            label = note.get("label")
            if not isinstance(label, int) or not 0 <= label < self.expected.classes:
                raise self._fault(
                    f"has {'no label' if label is None else f'label {label}'}; train.condition = 'class' wants one from"
                    f" 0 to train.classes - 1, {self.expected.classes - 1}"
                )
            return "", str(label)
        captions = [(str(one["source"]), str(one["text"])) for one in note["captions"]]
        if self._beside is not None:
            given = dict(self._beside.captions(sample.number))
            captions = [*(one for one in captions if one[0] not in given), *given.items()]
        note["captions"] = captions
        return self.expected.drawing.draw(note["captions"], sample.caption)

    def _features(self, sample: _Sample, note: dict[str, Any], text: str) -> Features | None:
        """Return the stored features of just this caption: those that stand beside the sample, else its own."""
        beside = self._beside.features(sample.number) if self._beside is not None else None
        if beside is not None and is_of(text, beside[0], note["captions"]):
            return self._checked(beside[1])
        at, length, crc32 = sample.t5
        if not length or not is_of(text, str(note.get("t5", {}).get("source", "")), note["captions"]):
            return None
        data = self.files.read(sample.shard, at, length)
        if zlib.crc32(data) != crc32:
            raise self._fault("its t5.npy is damaged: not the CRC-32 of the index; run `make pretokenize` again")
        return self._checked(unpack_numbers(read_npy(data)))

    def _checked(self, features: npt.NDArray[Any]) -> Features:
        """Return features. Raises LoaderError for what is not finite, or of another shape or width."""
        if features.ndim != 2 or not np.isfinite(features).all():
            share = np.isfinite(features).mean()
            raise self._fault(f"features are {features.shape} with {share:.1%} finite numbers, wanted (tokens, width)")
        if self.expected.width not in (None, features.shape[1]):
            width, wanted = features.shape[1], self.expected.width
            raise self._fault(f"stored text features are {width} wide, train.cond_dim is {wanted}")
        return features

    def _fault(self, says: str) -> LoaderError:
        return LoaderError(f"{self}: {says}")


@lru_cache(64)
def _head(crops: int, tokens: int) -> bytes:
    """Return what stands before the codes of so many crops."""
    return npy_bytes(np.zeros((crops, tokens), np.uint16))[:HEAD]


def _hex(uid_B2: Numbers) -> list[str]:
    """Return uids as 32 hex digits."""
    text = uid_B2.astype(">u8").tobytes().hex()
    return [text[start : start + 32] for start in range(0, len(text), 32)]


def joined(parts: list[Batch], step: int, order_B: Whole | None = None) -> Batch:
    """Return several batches as one, of step `step`; order_B: which of all its samples stands at each place."""
    if len(parts) == 1 and order_B is None:
        return replace(parts[0], step=step)
    order = np.arange(sum(map(len, parts))) if order_B is None else order_B
    texts = [
        list(itertools.chain.from_iterable(getattr(part, name) for part in parts))
        for name in ("uids_B", "captions_B", "sources_B", "features_B")
    ]
    uids_B, captions_B, sources_B, features_B = ([some[place] for place in order.tolist()] for some in texts)
    return Batch(
        step,
        np.concatenate([part.epoch_B for part in parts])[order],
        uids_B,
        np.concatenate([part.codes_BN for part in parts])[order],
        captions_B,
        sources_B,
        features_B,
    )
