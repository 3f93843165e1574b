"""Look at a shard of codes: pictures, what the codes make of them, the difference, and how the codebook is used."""

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from manifests.files import FormatError, parsing
from manifests.journal import records_of
from manifests.shards import Sample, ShardError, read_shard
from manifests.stored_pictures import may_hold, stored_pictures
from pipeline.evaluation.plots import Grid, Row, save_grid
from pipeline.recipes.schema import RecipeError
from tokenize_shards.crops import Crop
from tokenize_shards.images import scale_to, to_uint8

if TYPE_CHECKING:
    from tokenize_shards.vq import LoadedVQ

T = TypeVar("T")
GAIN = 4
"""How much stronger differences are drawn than they are."""
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class CodebookUse:
    """Codes of a shard: how many, how many different ones of the codebook, and the perplexity of their distribution."""

    codes: int
    used: int
    size: int
    perplexity: float


@dataclass(frozen=True)
class Shown:
    """What a contact sheet shows: PSNR in dB by uid (none where the picture is not at hand), and the codebook's use."""

    path: Path
    psnr: dict[str, float]
    use: CodebookUse


@dataclass(frozen=True)
class _Coded:
    """One sample of a shard of codes: its crops' codes, who made them (name, fingerprint), and the first caption or
    nothing."""

    key: str
    note: dict[str, Any]
    codes_KN: np.ndarray[Any, Any]
    maker: tuple[str, str]
    caption: str


def show_codes(shard: Path, loaded: "LoadedVQ", count: int, sheet: Path) -> Shown:
    """Write a PNG of the first `count` samples: picture, reconstruction, difference, PSNR. Codes are counted over the
    whole shard.

    Pictures come from the run folder that the shard lies in; a bare shard shows reconstructions alone.
    Raises RecipeError for a sheet that cannot be written or another tokenizer than the one that made the codes,
    ShardError or OSError for a damaged shard or one of something else.
    """
    check_sheet(sheet)
    samples = [_coded(shard, key, parts) for key, parts in read_shard(shard)]
    _check(shard, loaded, samples)
    use = codebook_use([sample.codes_KN for sample in samples], loaded.vq.spec.codebook_size)
    pictures = find_pictures(run_of(shard), [sample.key for sample in samples[:count]])
    rows, psnr = [], {}
    for sample in samples[:count]:
        key, caption = sample.key, sample.caption
        rebuilt = Image.fromarray(to_uint8(loaded.vq.decode(_tensor(sample.codes_KN[:1])))[0])
        real = (
            _got(shard, key, "crop of its picture", partial(_cut, pictures[key], sample.note))
            if key in pictures
            else None
        )
        if real is not None:
            psnr[key] = psnr_of(real, rebuilt)
        says = f"{psnr[key]:.1f} dB  {caption}" if key in psnr else caption
        rows.append(Row(says, [real, rebuilt, _difference(real, rebuilt) if real is not None else None]))
    save_grid(
        sheet,
        Grid(_heading(shard, loaded, use), ("picture", "codes", f"difference x {GAIN}"), rows, _note(psnr, len(rows))),
    )
    return Shown(sheet, psnr, use)


def check_sheet(sheet: Path) -> None:
    """Raise RecipeError unless a PNG can be put at this path without harm: its name says so, its folder is there, no
    other file is."""
    if sheet.suffix.lower() != ".png":
        raise RecipeError(f"show: the sheet is a PNG; got the name {str(sheet)!r}, wanted one that ends in .png")
    if not sheet.parent.is_dir():
        raise RecipeError(
            f"show: no folder {str(sheet.parent)!r} to write {sheet.name} in: make it first or name another"
        )
    if sheet.is_file():
        with open(sheet, "rb") as file:
            free = file.read(len(PNG)) == PNG
    else:
        free = not sheet.exists()
    if not free:
        raise RecipeError(f"show: {str(sheet)!r} is there and is no PNG: it stays as it is; name another sheet")


def run_of(shard: Path) -> Path:
    """Return the run folder that a shard would lie in: RUN/codes/TIER/NUMBER.tar."""
    parents = shard.resolve().parents
    return parents[min(2, len(parents) - 1)]


def _coded(shard: Path, key: str, parts: Sample) -> _Coded:
    """Read one sample. Raises ShardError, naming file, sample and what is not there."""
    note = _got(shard, key, "json that can be read", lambda: dict(json.loads(parts["json"])))
    maker = _got(shard, key, "tokenizer's name and fingerprint", lambda: _maker(note["tokenizer"]))
    caption = _got(
        shard, key, "list of captions", lambda: "".join(str(caption["text"]) for caption in note["captions"][:1])
    )
    codes_KN = _got(shard, key, "codes.npy that can be read", partial(_array, parts))
    if (
        codes_KN.dtype != np.uint16
        or codes_KN.ndim != 2
        or not codes_KN.size
        or math.isqrt(codes_KN.shape[1]) ** 2 != codes_KN.shape[1]
    ):
        raise _not_codes(
            shard, key, f"codes on a square grid: uint16 (crops, N) wanted, {codes_KN.dtype} {codes_KN.shape} got"
        )
    return _Coded(key, note, codes_KN, maker, caption)


def _maker(facts: dict[str, Any]) -> tuple[str, str]:
    return str(facts["name"]), str(facts["fingerprint"])


def _array(parts: Sample) -> np.ndarray[Any, Any]:
    return np.asarray(np.load(io.BytesIO(parts["codes.npy"]), allow_pickle=False))


def _got(shard: Path, key: str, what: str, get: Callable[[], T]) -> T:
    try:
        with parsing(shard, f"sample {key!r}"):
            return get()
    except FormatError as error:
        raise _not_codes(shard, key, what) from error


def _not_codes(shard: Path, key: str, what: str) -> ShardError:
    return ShardError(f"{shard} is no shard of codes: sample {key!r} has no {what}")


def _check(shard: Path, loaded: "LoadedVQ", samples: Sequence[_Coded]) -> None:
    """Raise RecipeError unless all codes are this tokenizer's, ShardError for a code that it has not."""
    if not samples:
        raise RecipeError(f"show: {shard} holds no sample")
    spec = loaded.vq.spec
    for sample in samples:
        name, digest = sample.maker
        if (name, digest) != (spec.name, loaded.fingerprint):
            raise RecipeError(
                f"show: {shard} was made by {name} {digest[:12]}…, got {spec.name} {loaded.fingerprint[:12]}…;"
                " give that tokenizer's weights: --weights FILE"
            )
        if (most := int(sample.codes_KN.max())) >= spec.codebook_size:
            raise ShardError(
                f"{shard}: sample {sample.key!r} has code {most}, outside the codebook of {spec.codebook_size}"
            )


def codebook_use(codes: Sequence[np.ndarray[Any, Any]], size: int) -> CodebookUse:
    """Return the use of a codebook of `size` entries: perplexity is exp of the entropy of the codes' frequencies,
    1..size."""
    counts = np.bincount(np.concatenate([array.ravel() for array in codes]), minlength=size)
    shares = counts[counts > 0] / counts.sum()
    return CodebookUse(
        int(counts.sum()), int((counts > 0).sum()), size, math.exp(float(-(shares * np.log(shares)).sum()))
    )


def psnr_of(real: Image.Image, rebuilt: Image.Image) -> float:
    """Return the peak signal-to-noise ratio of two 8-bit pictures in dB; infinite where they are equal."""
    error = float(np.mean((np.asarray(real, np.float64) - np.asarray(rebuilt, np.float64)) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def find_pictures(root: Path, keys: Sequence[str]) -> dict[str, Image.Image]:
    """Return uid -> stored picture of those that the run folder has, reading only the shards of pairs that hold
    them."""
    uids, pictures = set(keys), dict[str, Image.Image]()
    try:
        shards = [root / record.files[0].path for record in records_of(root, "fetch")]
    except OSError:
        return pictures
    for path in shards:
        if uids <= pictures.keys():
            break
        for key, sample in stored_pictures(path, uids) if may_hold(path, uids) else ():
            pictures[key] = _picture(path, key, sample)
    return pictures


def _picture(shard: Path, key: str, sample: Sample) -> Image.Image:
    try:
        with parsing(shard, f"sample {key!r}"):
            return Image.open(io.BytesIO(sample["jpg"])).convert("RGB")
    except FormatError as error:
        raise ShardError(f"{shard}: sample {key!r} has no jpg that can be read") from error


def _cut(picture: Image.Image, note: dict[str, Any]) -> Image.Image:
    """Return the pixels of a sample's first crop."""
    facts = note["crops"][0]
    crop = Crop(facts["place"], facts["scale"], tuple(facts["scaled"]), tuple(facts["box"]), facts["flip"])
    pixels = scale_to(picture, min(crop.scaled)).crop(crop.box)
    return pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.flip else pixels


def _tensor(codes_BN: np.ndarray[Any, Any]) -> Any:
    import torch

    return torch.from_numpy(codes_BN.astype(np.int64))


def _difference(real: Image.Image, rebuilt: Image.Image) -> Image.Image:
    far = np.abs(np.asarray(real, np.int16) - np.asarray(rebuilt, np.int16)) * GAIN
    return Image.fromarray(np.minimum(far, 255).astype(np.uint8))


def _heading(shard: Path, loaded: "LoadedVQ", use: CodebookUse) -> str:
    label = f"{loaded.vq.spec.name}{' (stand-in weights)' if loaded.weights.stand_in else ''}"
    return (
        f"{shard.parent.name}/{shard.name}: {label}, {use.used:,} of {use.size:,} codes, perplexity"
        f" {use.perplexity:,.0f}"
    )


def _note(psnr: dict[str, float], rows: int) -> str:
    if not psnr:
        return f"{rows} samples; the pictures are not at hand, so there is nothing to compare with"
    return f"{rows} samples; PSNR {np.mean(list(psnr.values())):.1f} dB on average over {len(psnr)}"
