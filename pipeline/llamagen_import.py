"""Read LlamaGen's codes into code shards: a text-to-image jsonl with its .npy files, or ImageNet's codes and labels."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manifests.files import digest_of, write_json
from manifests.shards import write_shard
from manifests.uid import uid_hash, uid_of
from pipeline.recipe import RecipeError
from tokenize_shards.catalog import vq_spec
from tokenize_shards.pack import Tokenizer, npy_bytes

POSITIONS = ("blip", "llava", "llava_first")
"""What the texts of a line are, by position (dataset/t2i.py, CAPTION_KEY)."""
SOURCES = {"blip": "top_caption", "llava": "llava", "llava_first": "llava_short"}


@dataclass(frozen=True)
class ImportOptions:
    """Where LlamaGen's files are, and what made their codes: they do not say so themselves."""

    codes: Path
    to: Path
    vq: str
    fingerprint: str
    size: int
    jsonl: Path | None = None
    labels: Path | None = None
    features: Path | None = None
    tier: str = "imported"
    shard_rows: int = 10_000
    seed: int = 0

    @property
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer as samples name it. Raises ValueError for an unknown one or a size that does not fit it."""
        spec = vq_spec(self.vq)
        if self.size % spec.downsampling:
            raise RecipeError(f"import: size {self.size} is no multiple of {self.vq}'s {spec.downsampling} pixels")
        return Tokenizer(self.vq, self.fingerprint, spec.codebook_size, self.size // spec.downsampling, False)


@dataclass(frozen=True)
class Found:
    """One picture of LlamaGen's: who it is, its code file, and its captions or label."""

    uid: bytes
    name: str
    path: Path
    captions: tuple[tuple[str, str], ...] = ()
    label: int | None = None
    features: Path | None = None


def import_llamagen(options: ImportOptions) -> dict[str, int]:
    """Write TO/codes/TIER/NUMBER.tar in an order shuffled by hash(uid, seed); return counts of what was read and what was not there.

    rows_in = kept + dropped: a line that is no JSON, has no .npy, or one of another shape, is dropped and counted, and shifts no other.
    Raises RecipeError where the folders hold nothing of the kind.
    """
    tokenizer = options.tokenizer
    read: list[Found | None] = list(_labelled(options) if options.labels else _lines(options))
    found = sorted((one for one in read if one), key=lambda one: (uid_hash(one.uid, options.seed), one.uid))
    if not read:
        raise RecipeError(
            f"import: nothing found below {options.jsonl or options.codes}; wanted *.jsonl files, or *_codes and *_labels folders"
        )
    counts = {"rows_in": len(read), "kept": 0, "dropped_line": len(read) - len(found), "dropped_missing": 0, "dropped_shape": 0}
    shard, waiting = 0, list[tuple[str, dict[str, bytes]]]()
    for one in found:
        parts = _parts(one, options, tokenizer, counts)
        if parts:
            waiting.append((one.uid.hex(), parts))
        if len(waiting) == options.shard_rows:
            shard = _flush(options, shard, waiting)
    if waiting:
        _flush(options, shard, waiting)
    assert counts["rows_in"] == sum(count for name, count in counts.items() if name != "rows_in"), counts
    write_json(options.to / "codes" / options.tier / "import.json", {"layout": "llamagen", "tokenizer": options.vq, **counts})
    return counts


def _flush(options: ImportOptions, shard: int, waiting: list[tuple[str, dict[str, bytes]]]) -> int:
    write_shard(options.to / "codes" / options.tier / f"{shard:05d}.tar", waiting, index=True)
    waiting.clear()
    return shard + 1


def _lines(options: ImportOptions) -> Iterator[Found | None]:
    """Yield each line of each jsonl, None for a broken one; its codes are CODES/STEM/LINE.npy, STEM ending at the first dot."""
    assert options.jsonl is not None
    files = sorted(options.jsonl.glob("*.jsonl")) if options.jsonl.is_dir() else [options.jsonl]
    stems = [path.name.partition(".")[0] for path in files]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise RecipeError(f"import: two jsonl files share the stem {twice[0]!r}: LlamaGen would have written their codes over each other")
    for path, stem in zip(files, stems, strict=True):
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file):
                yield _line(options, stem, number, line)


def _line(options: ImportOptions, stem: str, number: int, line: str) -> Found | None:
    try:
        entry = json.loads(line)
        texts, name = [str(text) for text in entry["text"]], str(entry["image_path"])
    except (ValueError, KeyError, TypeError):
        return None
    captions = tuple((SOURCES[position], text) for position, text in zip(POSITIONS, texts, strict=False) if text)
    features = options.features / stem / f"{number}.npy" if options.features else None
    return Found(uid_of(name, texts[0] if texts else ""), name, options.codes / stem / f"{number}.npy", captions, features=features)


def _labelled(options: ImportOptions) -> Iterator[Found]:
    """Yield ImageNet's pictures: CODES/I.npy and LABELS/I.npy, I from 0."""
    assert options.labels is not None
    for path in sorted(options.codes.glob("*.npy"), key=lambda path: (len(path.stem), path.stem)):
        label = options.labels / path.name
        if not label.is_file():
            raise RecipeError(f"import: {path} has no label {label}")
        number = int(np.load(label, allow_pickle=False).reshape(-1)[0])
        name = f"{options.codes.name}/{path.stem}"
        yield Found(uid_of(name, str(number)), name, path, label=number)


def _parts(one: Found, options: ImportOptions, tokenizer: Tokenizer, counts: dict[str, int]) -> dict[str, bytes] | None:
    try:
        codes = np.load(one.path, allow_pickle=False)
    except FileNotFoundError:
        counts["dropped_missing"] += 1
        return None
    except (ValueError, EOFError, OSError):
        codes = np.zeros((0,), np.int64)
    tokens = tokenizer.grid**2
    whole = codes.size and codes.size % tokens == 0 and codes.shape[-1] == tokens and np.issubdtype(codes.dtype, np.integer)
    if not whole or codes.min() < 0 or codes.max() >= tokenizer.codebook:
        counts["dropped_shape"] += 1
        return None
    counts["kept"] += 1
    codes_KN = codes.reshape(-1, tokens).astype(np.uint16)
    note: dict[str, Any] = {
        "uid": one.uid.hex(),
        "url": one.name,
        "captions": [{"source": source, "text": text} for source, text in one.captions],
        "tier": options.tier,
        "size": options.size,
        "grid": tokenizer.grid,
        "crops": [{"place": "as LlamaGen stored it", "number": number} for number in range(len(codes_KN))],
        "tokenizer": {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint, "codebook": tokenizer.codebook, "stand_in": False},
        "parent_digest": digest_of(["llamagen", one.name]),
        **({} if one.label is None else {"label": one.label}),
    }
    parts = {"codes.npy": npy_bytes(codes_KN)}
    if one.features is not None and one.features.is_file():
        note["t5"] = {"source": one.captions[0][0] if one.captions else "", "dtype": "fp16"}
        parts["t5.npy"] = npy_bytes(np.load(one.features, allow_pickle=False).reshape(-1, _width(one.features)).astype(np.float16))
    return {**parts, "json": json.dumps(note, ensure_ascii=False).encode()}


def _width(path: Path) -> int:
    return int(np.load(path, allow_pickle=False, mmap_mode="r").shape[-1])
