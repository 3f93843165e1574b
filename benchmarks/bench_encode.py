"""Measure encoding from JPEG shards to finished code shards, beside a loop as LlamaGen's extractor does it, in one
run."""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from manifests.shards import read_shard, write_shard
from manifests.weights import STAND_IN
from pipeline.execution.decode_pool import Decoders, Pair
from pipeline.steps.encode import Cut, cut
from tokenize_shards.agreement import measure
from tokenize_shards.crops import CropPlan
from tokenize_shards.encode import Encoder, Precision
from tokenize_shards.images import center_crop, to_tensor
from tokenize_shards.samples import Tokenizer, sample_parts
from tokenize_shards.vq import LoadedVQ, load_vq

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
"""Dense bf16 operations a second, from NVIDIA's data sheets; TF32 has half of it. Shares are given of the precision's
own peak."""


Begun = tuple[list[Pair], list[list[Cut]], Callable[[], np.ndarray]]
"""A batch on its way: its pairs, their crops, and what waits for their codes."""


@dataclass(frozen=True)
class Case:
    """What is encoded, and how."""

    loaded: LoadedVQ
    size: int
    batch: int
    precision: Precision
    decoders: int
    fused: bool


def write_pictures(path: Path, count: int, side: int) -> None:
    """Write a shard of pairs: JPEGs of smooth noise with grain, `side` pixels on the short side."""

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for number in range(count):
            rng = np.random.default_rng(number)
            smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
                (side * 4 // 3, side), Image.Resampling.BICUBIC
            )
            grain = np.asarray(smooth, np.int16) + rng.integers(-8, 9, (side, side * 4 // 3, 1))
            with io.BytesIO() as file:
                Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=92)
                yield f"{number:032x}", {"jpg": file.getvalue()}

    write_shard(path, samples())


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """Pictures in files, one by one, as LlamaGen's extractor reads them."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            return to_tensor([center_crop(image.convert("RGB"), self.size)])[0]


def loop(case: Case, tar: Path, out: Path, workers: int) -> None:
    """Do it as the reference does: files, a loader with batch 1, TF32, a table of all distances, one .npy a picture."""
    folder = out / "pictures"
    folder.mkdir(parents=True)
    for key, sample in read_shard(tar):
        (folder / f"{key}.jpg").write_bytes(sample["jpg"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vq = case.loaded.vq.to(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    loader = torch.utils.data.DataLoader(Files(sorted(folder.iterdir()), case.size), batch_size=1, num_workers=workers)
    (out / "codes").mkdir()
    with torch.no_grad():
        e_KD = vq.quantize.units()
        for number, x_BCHW in enumerate(loader):
            z_BDhw = vq.latents(x_BCHW.to(device))
            z_PD = torch.nn.functional.normalize(z_BDhw.permute(0, 2, 3, 1).flatten(0, 2), dim=-1)
            d_PK = (z_PD**2).sum(1, keepdim=True) + (e_KD**2).sum(1) - 2 * z_PD @ e_KD.T
            np.save(out / "codes" / f"{number}.npy", d_PK.argmin(1).view(1, -1).cpu().numpy())


def one_ahead(items: Iterator[Begun]) -> Iterator[Begun]:
    """Yield each item when the next one has been begun."""
    before = next(items)
    for item in items:
        yield before
        before = item
    yield before


def ours(case: Case, tar: Path, out: Path) -> None:
    """Do it as the encode and pack steps do: decoders a batch ahead, whole batches, one shard with its index."""
    encoder = Encoder(case.loaded, case.precision, fused=case.fused)
    grid = case.size // case.loaded.vq.spec.downsampling
    tokenizer = Tokenizer(
        case.loaded.vq.spec.name, case.loaded.fingerprint, case.loaded.vq.spec.codebook_size, grid, True
    )
    work = partial(cut, max_pixels=100_000_000, size=case.size, plan=CropPlan())
    decoders = Decoders(case.decoders)

    def begun() -> Iterator[Begun]:
        pairs = [(bytes.fromhex(key), sample["jpg"]) for key, sample in read_shard(tar)]
        batches = (pairs[start : start + case.batch] for start in range(0, len(pairs), case.batch))
        for batch, cutting in decoders.ahead(batches, work):
            crops = cutting()
            yield batch, crops, encoder.begin_crops([pixels for ((_, pixels),) in crops], case.size, case.batch)

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for batch, crops, codes_BN in one_ahead(begun()) if encoder.ahead else begun():
            for (uid, _), ((note, _),), codes_N in zip(batch, crops, codes_BN(), strict=True):
                row = {
                    "uid": uid,
                    "url": "",
                    "codes": codes_N,
                    "n_crops": 1,
                    "size": case.size,
                    "crops": [note],
                    "sha256": bytes(32),
                }
                yield (
                    uid.hex(),
                    sample_parts({**row, "text": "a picture", "top_caption": None}, "pretrain", tokenizer, ""),
                )

    write_shard(out / "00000.tar", samples(), index=True)
    decoders.close()


def seconds(work: Callable[[Path], None], repeats: int) -> float:
    """Return the least time of some runs, each into an empty folder."""
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            work(Path(folder))
            found.append(time.perf_counter() - started)
    return min(found)


def flops(loaded: LoadedVQ, size: int) -> float:
    """Count the floating-point operations of encoding one picture, the comparison with the codebook included."""
    device = next(loaded.vq.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        loaded.vq.encode(torch.zeros(1, 3, size, size, device=device))
    return float(counter.get_total_flops())


def figures(case: Case, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run both at one size and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        tar = Path(folder) / "00000.tar"
        write_pictures(tar, chosen.pictures, -(-11 * case.size // 10))
        ours_s = seconds(lambda out: ours(case, tar, out), chosen.repeats)
        loop_s = seconds(lambda out: loop(case, tar, out, chosen.loop_workers), chosen.repeats)
    cost, rate = flops(case.loaded, case.size), chosen.pictures / ours_s
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    peak = next((value for kind, value in PEAKS.items() if kind in name), None)
    halved = {"bf16": 1.0, "tf32": 0.5}.get(case.precision)
    agreement = measure(case.loaded, Encoder(case.loaded, case.precision), case.size, case.batch)
    return {
        "size": case.size,
        "images_per_s": round(rate, 2),
        "loop_images_per_s": round(chosen.pictures / loop_s, 2),
        "ratio": round(loop_s / ours_s, 2),
        "gflop_per_image": round(cost / 1e9, 2),
        "gflop_per_s": round(rate * cost / 1e9, 1),
        "share_of_peak": round(rate * cost / (peak * halved), 3) if peak and halved else None,
        "codes_as_in_fp32": round(agreement.share, 4),
    }


def positive(text: str) -> int:
    """Return a whole number of at least 1. Raises ValueError."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def positives(text: str) -> list[int]:
    """Return whole numbers that commas divide. Raises ValueError."""
    return [positive(part) for part in text.split(",")]


def main() -> None:
    """Run the benchmark and print its figures, the last line as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vq", default="VQ-demo", help="VQ-16, VQ-8 or VQ-demo")
    parser.add_argument("--weights", default=STAND_IN, help="a file, or 'stand-in': the arithmetic is the same")
    parser.add_argument("--sizes", type=positives, default="256,512", help="sides of the crops, pixels")
    parser.add_argument("--pictures", type=positive, default=64)
    parser.add_argument("--batch", type=positive, default=64)
    parser.add_argument(
        "--precision", choices=("fp32", "tf32", "bf16"), default="bf16" if torch.cuda.is_available() else "fp32"
    )
    parser.add_argument("--decoders", type=int, default=0, help="processes that decode for ours")
    parser.add_argument(
        "--loop-workers", type=int, default=16, help="processes that decode for the loop; LlamaGen's scripts take 16"
    )
    parser.add_argument("--fused", action="store_true", help="compile the encoder on a GPU")
    parser.add_argument("--repeats", type=positive, default=2)
    chosen = parser.parse_args()
    try:
        loaded = load_vq(chosen.vq, chosen.weights)
    except ValueError as error:  # WeightsError is one
        parser.error(str(error))
    if odd := [size for size in chosen.sizes if size % loaded.vq.spec.downsampling]:
        parser.error(f"--sizes {odd[0]}: {chosen.vq} wants multiples of {loaded.vq.spec.downsampling}")
    found = []
    for size in chosen.sizes:
        case = Case(loaded, size, chosen.batch, chosen.precision, chosen.decoders, chosen.fused)
        found.append(figures(case, chosen))
        print(*(f"{name} {value}" for name, value in found[-1].items()), sep="  ")
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    who = f"{chosen.vq}, {'stand-in weights' if loaded.weights.stand_in else loaded.weights.label}"
    print(
        json.dumps(
            {"benchmark": "encode", "machine": where, "tokenizer": who, "precision": chosen.precision, "sizes": found}
        )
    )


if __name__ == "__main__":
    main()
