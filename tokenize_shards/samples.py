"""Write and read code samples: the codes as .npy, and a JSON note of captions, crop, tokenizer and origin."""

import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.files import FormatError, digest_of, parsing
from manifests.remote_path import snapshot
from manifests.shards import ShardError, ShardReader, index_counts, index_path, verify_shard
from manifests.store import is_remote, local_copy

Codes = npt.NDArray[np.uint16]
Features = npt.NDArray[np.float32]
"""Text features of one caption: (n tokens, C)."""

HEADS = 1024
"""Heads of .npy files that are kept: to write one or to read it takes ten times as long as the numbers behind it."""
ASKED_AT_ONCE = 16
"""Indexes of shards in a store that are asked for at a time."""
UNKNOWN = "unknown"
"""The fingerprint of a tokenizer whose weights were not at hand when its codes were imported."""


@dataclass(frozen=True)
class Tokenizer:
    """What made the codes: architecture, sha256 of its weights, codebook size, side of the grid, and whether it is a
    stand-in."""

    name: str
    fingerprint: str
    codebook: int
    grid: int
    stand_in: bool

    def record(self) -> dict[str, str | int | bool]:
        """Return what a sample's JSON says of it; the grid stands there by itself."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "codebook": self.codebook,
            "stand_in": self.stand_in,
        }


def npy_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """Return an array as a .npy file, version 1.0, without pickle. Raises ValueError for Python objects."""
    whole = np.ascontiguousarray(array)
    return _npy_head(whole.dtype, whole.shape) + whole.tobytes()


@lru_cache(HEADS)
def _npy_head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return what stands before the numbers."""
    if dtype.hasobject:
        raise ValueError(f"Object arrays are not written: {dtype}, wanted numbers")
    buffer = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def read_npy(data: bytes) -> np.ndarray[Any, Any]:
    """Return the array of a .npy file. Raises as np.load does for what is none, or holds Python objects."""
    end = 10 + int.from_bytes(data[8:10], "little")
    if data[:8] == b"\x93NUMPY\x01\x00":
        shape, is_fortran, dtype = _parsed_head(data[8:end])
        if not dtype.hasobject and min(shape, default=0) >= 0:
            numbers = np.frombuffer(data, dtype, math.prod(shape), end).copy()
            return numbers.reshape(shape, order="F" if is_fortran else "C")
    loaded: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return loaded


@lru_cache(HEADS)
def _parsed_head(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return np.lib.format.read_array_header_1_0(io.BytesIO(head))


def pack_numbers(features: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Return float32 features as fp16, or as bf16's upper 16 bits in uint16 (rounded to nearest even)."""
    if dtype == "fp16":
        return features.astype(np.float16)
    bits = np.ascontiguousarray(features, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def finite_numbers(features: np.ndarray[Any, Any], dtype: str) -> tuple[np.ndarray[Any, Any], str] | None:
    """Return float32 features as `pack_numbers` gives them, and the dtype: bf16 where the wanted one overflows.

    None for features that neither holds, with a NaN or an infinity among them.
    """
    for name in dict.fromkeys((dtype, "bf16")):
        with np.errstate(over="ignore"):
            numbers = pack_numbers(features, name)
        if np.isfinite(features).all() and np.isfinite(unpack_numbers(numbers)).all():
            return numbers, name
    return None


def unpack_numbers(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return stored features as float32: half floats, or bfloat16's bits in uint16."""
    if numbers.dtype == np.uint16:
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)


def captions_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the captions of a packed row with their sources: alt text, the input's own, then each captioner's in the
    tier's order of preference: the whole one, its first sentence, and what of it fits into the text encoder where not
    all does; with model, prompt, flags, and whose words they are.

    Captions that were not judged say neither flags nor origin, and stand here as they are.
    """
    found: list[dict[str, Any]] = [
        {"source": source, "text": row[name]}
        for source, name in (("alt", "text"), ("top_caption", "top_caption"))
        if row.get(name)
    ]
    for said in row.get("said") or ():
        made = {name: said[name] for name in ("model", "prompt", "flags", "origin") if name in said}
        for ending, column in (("", "caption"), ("_short", "short_caption"), ("_fit", "fit_caption")):
            nothing_fits = said.get(column) == "" and ending == "_fit"  # and that is to be known
            if said.get(column) or nothing_fits or (column in said and "origin" not in said):
                found.append({"source": said["captioner"] + ending, "text": said[column], **made})
    return found


def sample_parts(row: Mapping[str, Any], tier: str, tokenizer: Tokenizer, parent: str) -> dict[str, bytes]:
    """Return the members of one sample: `codes.npy` uint16 (n_crops, n_tokens), raster order, `json`, and perhaps
    `t5.npy`.

    `row` has uid (16 bytes), url, codes (flat), n_crops, size, crops, sha256 (of the picture), text, top_caption, said;
    t5 where wanted:
    `numbers` (tokens, width), fp16 or bf16's bits in uint16, and a `note` of what made them.
    Raises ValueError when the codes are not n_crops grids or a code is outside the codebook.
    """
    codes = np.asarray(row["codes"], np.uint16).reshape(row["n_crops"], -1)
    if codes.shape[1] != tokenizer.grid**2 or codes.max(initial=0) >= tokenizer.codebook:
        got = f"{codes.shape[1]} codes up to {codes.max(initial=0)}"
        raise ValueError(
            f"codes of {row['uid'].hex()}: got {got}, wanted {tokenizer.grid**2} below {tokenizer.codebook}"
        )
    note = {
        "uid": row["uid"].hex(),
        "url": row["url"],
        "captions": captions_of(row),
        "tier": tier,
        "size": row["size"],
        "grid": tokenizer.grid,
        "crops": row["crops"],
        "image_sha256": row["sha256"].hex(),
        "tokenizer": tokenizer.record(),
        "parent_digest": parent,
    }
    parts = {"codes.npy": npy_bytes(codes)}
    if row.get("t5"):
        note["t5"], parts["t5.npy"] = row["t5"]["note"], npy_bytes(row["t5"]["numbers"])
    return {**parts, "json": json.dumps(note, ensure_ascii=False, allow_nan=False).encode()}


class LoaderError(ValueError):
    """The code shards cannot be trained on; the message names the folder, shard or sample and the remedy."""


@dataclass(frozen=True)
class CodeSample:
    """One picture of a shard: its codes by crop (K, N), its captions as (source, text), and text features where
    stored."""

    uid: str
    codes_KN: Codes
    captions: tuple[tuple[str, str], ...]
    tokenizer: Tokenizer
    size: int  # pixels per side
    parent: str = ""  # digest of the filter manifest that the picture came through
    features: Features | None = field(default=None, repr=False)  # (n, C), of the caption whose source is `features_of`
    features_of: str = ""
    features_by: str = ""  # sha256 of the weights that made them
    label: int | None = None  # class, of codes for class-conditional training


@dataclass(frozen=True)
class Shard:
    """A tar of code samples and what its index says of it."""

    path: Path
    samples: int
    bytes: int
    sha256: str


def tier_folder(codes: Path, tier: str) -> Path:
    """Return RUN/codes/TIER, which has shards; no index is read. Raises LoaderError where there is nothing to train
    on."""
    folder = codes / tier
    with_codes = sorted({path.parent.name for path in codes.glob("*/*.tar")})
    if not with_codes:
        raise LoaderError(
            f"no codes in {codes} yet: run `make pretokenize` (or `pipeline run --stage pretokenize`) first"
        )
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise LoaderError(f"tier {tier!r} has no codes in {codes}; tiers with codes: {', '.join(with_codes)}")
    return folder


def find_shards(codes: Path, tier: str) -> list[Shard]:
    """Return the shards of RUN/codes/TIER in name order. Raises LoaderError where there is nothing to train on."""
    paths = sorted(tier_folder(codes, tier).glob("*.tar"))
    folder = codes / tier
    shards = _with_counts(paths)
    if not sum(shard.samples for shard in shards):
        raise LoaderError(f"tier {tier!r} is empty: its {len(shards)} shard(s) in {folder} hold no sample")
    return shards


def _with_counts(paths: Sequence[Path]) -> list[Shard]:
    """Return shards with what their indexes say; of a store many indexes are asked for at a time."""
    if not is_remote(paths[0]):
        return [_shard(path) for path in paths]
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return list(pool.map(_shard, paths))


def _shard(path: Path) -> Shard:
    try:
        return Shard(path.resolve(), *index_counts(index_path(path)))
    except (OSError, FormatError) as error:
        raise LoaderError(
            f"shard {path} has no readable index {index_path(path).name} ({error}): run `make pretokenize` again"
        ) from error


def check_shards(shards: Sequence[Shard], how: str) -> None:
    """Compare each shard with its index, by "sha256" or by "size". Raises LoaderError that names the damaged shard."""
    with snapshot():
        for shard in shards:
            try:
                if how == "sha256":
                    verify_shard(shard.path)
                elif (size := shard.path.stat().st_size) != shard.bytes:
                    raise ShardError(f"{shard.path}: {size} bytes, its index says {shard.bytes}")
            except (OSError, FormatError) as error:
                raise LoaderError(f"damaged shard: {error}; remove it and run `make pretokenize` again") from error


def data_digest(shards: Sequence[Shard]) -> str:
    """Return the sha256 that stands for all shards: names and contents."""
    return digest_of([[shard.path.name, shard.sha256] for shard in shards])


def read_samples(shard: Shard) -> Iterator[CodeSample]:
    """Yield the samples of one shard through webdataset, in the shard's order; of a store, of a local copy of it.

    Raises LoaderError for a sample that cannot be read, and at the end where fewer came than the index says:
    a cut tar otherwise ends in silence.
    """
    import webdataset

    with local_copy(shard.path) as path:
        # One shard per pipeline, already this process's own: nothing is left to split or shuffle.
        parts = webdataset.WebDataset([str(path)], shardshuffle=False, nodesplitter=None, empty_check=False)
        yield from _all_of(shard, parts)


def indexed_samples(shard: Shard) -> Iterator[CodeSample]:
    """Yield the samples of one shard through its index, in the shard's order, each member held against its
    CRC-32: for those that train on none of them, since webdataset imports torch. Raises as `read_samples`."""
    with parsing(f"shard {shard.path}", "cannot be read", LoaderError), ShardReader(shard.path) as reader:
        yield from _all_of(shard, ({"__key__": key, **sample} for key, sample in reader.samples()))


def _all_of(shard: Shard, parts: Iterable[Mapping[str, Any]]) -> Iterator[CodeSample]:
    """Yield samples of a shard, decoded. Raises LoaderError."""
    count = 0
    with parsing(f"shard {shard.path}", "cannot be read", LoaderError):
        for part in parts:
            count += 1
            yield _decode(part, shard.path)
    if count != shard.samples:
        raise LoaderError(f"shard {shard.path}: {count} samples came out, its index says {shard.samples}")


def _decode(part: Mapping[str, Any], path: Path) -> CodeSample:
    """Read one sample's members and check them. Raises LoaderError that names the shard and the sample."""
    where = f"shard {path}, sample {part.get('__key__')}"
    with parsing(where, "cannot be read", LoaderError):
        sample, crops = _parse(part)
    fault = _fault(sample, crops)
    if fault:
        raise LoaderError(f"{where}: {fault}")
    return sample


def _parse(part: Mapping[str, Any]) -> tuple[CodeSample, int]:
    """Return a sample, and how many crops its note has; npy files may hold no Python objects."""
    codes_KN = read_npy(part["codes.npy"])
    record = json.loads(part["json"])
    tokenizer = Tokenizer(
        name=record["tokenizer"]["name"],
        fingerprint=record["tokenizer"]["fingerprint"],
        codebook=int(record["tokenizer"]["codebook"]),
        grid=int(record["grid"]),
        stand_in=bool(record["tokenizer"].get("stand_in", False)),
    )
    sample = CodeSample(
        uid=str(record["uid"]),
        codes_KN=codes_KN,
        captions=tuple((str(caption["source"]), str(caption["text"])) for caption in record["captions"]),
        tokenizer=tokenizer,
        size=int(record["size"]),
        parent=str(record.get("parent_digest", "")),
        features=unpack_numbers(read_npy(part["t5.npy"])) if "t5.npy" in part else None,
        features_of=str(record.get("t5", {}).get("source", "")),
        features_by=str(record.get("t5", {}).get("weights", "")),
        label=None if record.get("label") is None else int(record["label"]),
    )
    return sample, len(record.get("crops") or codes_KN)


def _fault(sample: CodeSample, crops: int) -> str:
    """Return what is wrong with a sample's arrays, or nothing; `crops`: how many its note has."""
    codes_KN, features, tokenizer = sample.codes_KN, sample.features, sample.tokenizer
    if codes_KN.dtype != np.uint16 or codes_KN.ndim != 2 or not len(codes_KN) or codes_KN.shape[1] != tokenizer.grid**2:
        return f"codes are {codes_KN.dtype} {codes_KN.shape}, wanted uint16 (crops, {tokenizer.grid**2})"
    if crops != len(codes_KN):
        return f"{len(codes_KN)} code arrays, but {crops} crops are noted"
    if features is not None and (features.ndim != 2 or not np.isfinite(features).all()):
        share = np.isfinite(features).mean()
        return f"features are {features.shape} with {share:.1%} finite numbers, wanted (tokens, width)"
    if int(codes_KN.max()) >= tokenizer.codebook:
        return f"code {int(codes_KN.max())} is outside the codebook of {tokenizer.codebook}"
    return ""


def only_made_by(tokenizer: Tokenizer, samples: Iterator[CodeSample], path: Path) -> Iterator[CodeSample]:
    """Pass samples of one tokenizer through. Raises LoaderError for a sample of another."""
    for sample in samples:
        if sample.tokenizer != tokenizer:
            raise LoaderError(
                f"shard {path}, sample {sample.uid}: made by {sample.tokenizer}, the first sample of all by"
                f" {tokenizer}: run `make pretokenize` again"
            )
        yield sample


def first_sample(shards: Sequence[Shard]) -> CodeSample:
    """Return the first sample there is; its tokenizer is the one that all others must have."""
    shard = next(shard for shard in shards if shard.samples)
    return next(indexed_samples(shard))


def class_of(sample: CodeSample, classes: int) -> int:
    """Return a sample's class, 0..classes - 1. Raises LoaderError where it has none such."""
    if sample.label is None or not 0 <= sample.label < classes:
        got = "no label" if sample.label is None else f"label {sample.label}"
        raise LoaderError(
            f"sample {sample.uid} has {got}; train.condition = 'class' wants one from 0 to train.classes - 1,"
            f" {classes - 1}"
        )
    return sample.label
