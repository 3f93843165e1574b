"""Look at a shard of codes: pictures, what the codes make of them, the difference, and how the codebook is used."""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from manifests.shards import read_shard
from pipeline.preview import Grid, Row, save_grid
from pipeline.recipe import RecipeError
from pipeline.steps import records_of
from tokenize_shards.crops import Crop
from tokenize_shards.images import scale_to, to_uint8

if TYPE_CHECKING:
    from tokenize_shards.vq import LoadedVQ

GAIN = 4
"""How much stronger differences are drawn than they are."""


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


def show_codes(shard: Path, loaded: "LoadedVQ", count: int, sheet: Path) -> Shown:
    """Write a PNG of the first `count` samples: picture, reconstruction, difference, PSNR. Codes are counted over the whole shard.

    Pictures come from the run folder that the shard lies in; a bare shard shows reconstructions alone.
    Raises RecipeError for another tokenizer than the one that made the codes, ShardError or OSError for a damaged shard.
    """
    samples = list(read_shard(shard))
    notes = [json.loads(sample["json"]) for _, sample in samples]
    _check(shard, loaded, notes)
    codes = [np.load(io.BytesIO(sample["codes.npy"]), allow_pickle=False) for _, sample in samples]
    use = codebook_use(codes, loaded.vq.spec.codebook_size)
    pictures = find_pictures(run_of(shard), [key for key, _ in samples[:count]])
    rows, psnr = [], {}
    for (key, _), note, codes_KN in list(zip(samples, notes, codes, strict=True))[:count]:
        made = Image.fromarray(to_uint8(loaded.vq.decode(_tensor(codes_KN[:1])))[0])
        real = _cut(pictures[key], note) if key in pictures else None
        if real is not None:
            psnr[key] = psnr_of(real, made)
        caption = note["captions"][0]["text"] if note["captions"] else ""
        says = f"{psnr[key]:.1f} dB  {caption}" if key in psnr else caption
        rows.append(Row(says, [real, made, _difference(real, made) if real is not None else None]))
    save_grid(sheet, Grid(_heading(shard, loaded, use), ("picture", "codes", f"difference x {GAIN}"), rows, _note(psnr, len(rows))))
    return Shown(sheet, psnr, use)


def run_of(shard: Path) -> Path:
    """Return the run folder that a shard would lie in: RUN/codes/TIER/NUMBER.tar."""
    return shard.resolve().parents[2]


def _check(shard: Path, loaded: "LoadedVQ", notes: Sequence[dict[str, Any]]) -> None:
    if not notes:
        raise RecipeError(f"show: {shard} holds no sample")
    made = notes[0]["tokenizer"]
    if (made["name"], made["fingerprint"]) != (loaded.vq.spec.name, loaded.fingerprint):
        raise RecipeError(
            f"show: {shard} was made by {made['name']} {made['fingerprint'][:12]}…, got {loaded.vq.spec.name} {loaded.fingerprint[:12]}…;"
            " give that tokenizer's weights: --weights FILE"
        )


def codebook_use(codes: Sequence[np.ndarray[Any, Any]], size: int) -> CodebookUse:
    """Return the use of a codebook of `size` entries: perplexity is exp of the entropy of the codes' frequencies, 1..size."""
    counts = np.bincount(np.concatenate([array.ravel() for array in codes]), minlength=size)
    shares = counts[counts > 0] / counts.sum()
    return CodebookUse(int(counts.sum()), int((counts > 0).sum()), size, math.exp(float(-(shares * np.log(shares)).sum())))


def psnr_of(real: Image.Image, made: Image.Image) -> float:
    """Return the peak signal-to-noise ratio of two 8-bit pictures in dB; infinite where they are equal."""
    error = float(np.mean((np.asarray(real, np.float64) - np.asarray(made, np.float64)) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def find_pictures(root: Path, keys: Sequence[str]) -> dict[str, Image.Image]:
    """Return uid -> stored picture of those that the run folder has, reading only the shards of pairs that hold them."""
    wanted, found = set(keys), dict[str, Image.Image]()
    try:
        shards = [root / record.files[0].path for record in records_of(root, "fetch")]
    except OSError:
        return found
    for path in shards:
        if wanted <= found.keys():
            break
        for key, sample in read_shard(path):
            if key in wanted:
                found[key] = Image.open(io.BytesIO(sample["jpg"])).convert("RGB")
    return found


def _cut(picture: Image.Image, note: dict[str, Any]) -> Image.Image:
    """Return the pixels of a sample's first crop."""
    facts = note["crops"][0]
    crop = Crop(facts["place"], facts["scale"], tuple(facts["scaled"]), tuple(facts["box"]), facts["flip"])
    pixels = scale_to(picture, min(crop.scaled)).crop(crop.box)
    return pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.flip else pixels


def _tensor(codes_BN: np.ndarray[Any, Any]) -> Any:
    import torch

    return torch.from_numpy(codes_BN.astype(np.int64))


def _difference(real: Image.Image, made: Image.Image) -> Image.Image:
    far = np.abs(np.asarray(real, np.int16) - np.asarray(made, np.int16)) * GAIN
    return Image.fromarray(np.minimum(far, 255).astype(np.uint8))


def _heading(shard: Path, loaded: "LoadedVQ", use: CodebookUse) -> str:
    label = f"{loaded.vq.spec.name}{' (stand-in weights)' if loaded.weights.stand_in else ''}"
    return f"{shard.parent.name}/{shard.name}: {label}, {use.used:,} of {use.size:,} codes, perplexity {use.perplexity:,.0f}"


def _note(psnr: dict[str, float], rows: int) -> str:
    if not psnr:
        return f"{rows} samples; the pictures are not at hand, so there is nothing to compare with"
    return f"{rows} samples; PSNR {np.mean(list(psnr.values())):.1f} dB on average over {len(psnr)}"
