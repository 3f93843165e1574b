"""Measure scoring: pictures a second, decoding and model apart, arithmetic done, and on a GPU its share of the peak."""

import argparse
import io
import json
import platform
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from filters.dedup import phash
from filters.images.decode import ImageLimits, open_picture
from filters.scorers.base import Compute

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12}
"""Dense bf16 (T4: fp16) multiply-adds a second x 2, from NVIDIA's data sheets; fp32 runs on other units and is given no
share."""


@dataclass(frozen=True)
class Encoder:
    """A model under test and what one picture costs it in floating-point operations."""

    name: str
    run: Any
    alone: Any
    flops: float


def pictures(count: int, side: int) -> list[bytes]:
    """Return JPEGs of smooth noise with grain, `side` pixels on the short side."""
    found = []
    for number in range(count):
        rng = np.random.default_rng(number)
        smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
            (side * 4 // 3, side), Image.Resampling.BICUBIC
        )
        grain = np.clip(np.asarray(smooth, np.int16) + rng.integers(-8, 9, (side, side * 4 // 3, 1)), 0, 255).astype(
            np.uint8
        )
        with io.BytesIO() as file:
            Image.fromarray(grain).save(file, "JPEG", quality=92)
            found.append(file.getvalue())
    return found


def clip(model: str, compute: Compute) -> Encoder:
    """Return CLIP's picture tower with random weights of the real shapes; nothing is fetched."""
    import open_clip
    import torch

    from filters.scorers import clip as module
    from filters.scorers.options import ClipOptions

    config = open_clip.get_model_config(model)
    look = open_clip.transform.PreprocessCfg(size=config["vision_cfg"]["image_size"])

    def load(options: ClipOptions) -> Any:
        torch.manual_seed(0)
        return (
            module._build(config).eval(),
            open_clip.transform.image_transform_v2(look, is_train=False),
            open_clip.SimpleTokenizer(),
        )

    real, module.load_clip = (
        module.load_clip,
        load,
    )  # random weights instead of a file: the same class, the same arithmetic
    try:
        encoder = module.Clip(ClipOptions(), compute, frozenset({"image"}))
    finally:
        module.load_clip = real
    side = config["vision_cfg"]["image_size"]
    cost = flops_of(encoder.model.encode_image, (1, 3, side, side), encoder.device)

    def alone(image: Image.Image) -> Any:
        with torch.inference_mode():
            return encoder.model.encode_image(encoder.transform(image)[None].to(encoder.device)).float().cpu().numpy()

    return Encoder(model, lambda images: encoder.encode(images, {}), alone, cost)


def flops_of(tower: Any, shape: tuple[int, ...], device: Any) -> float:
    """Count the floating-point operations of one picture (2 per multiply-add)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see inside fused attention
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        tower(torch.zeros(shape, device=device))
    torch.backends.mha.set_fastpath_enabled(fast)
    return float(counter.get_total_flops())


def timed(work: Any, least_s: float) -> float:
    """Return seconds per call, over at least `least_s` seconds after one call to warm up."""
    work()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < least_s:
        work()
        calls += 1
    return (time.perf_counter() - started) / calls


def machine() -> tuple[str, float | None]:
    """Return (what this runs on, peak operations a second in bf16 where known)."""
    import torch

    if not torch.cuda.is_available():
        return f"{platform.machine()} CPU, {torch.get_num_threads()} threads", None
    name = torch.cuda.get_device_name()
    return name, next((peak for kind, peak in PEAKS.items() if kind in name), None)


def main() -> None:
    """Run the benchmark and print its figures, the last line as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default="ViT-B-32-quickgelu", help="open_clip's name; ViT-L-14-quickgelu is what the heads want"
    )
    parser.add_argument("--batch", type=int, default=8, help="pictures per batch; 256 or more on a GPU")
    parser.add_argument("--side", type=int, default=563, help="short side of the stored pictures, pixels")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each measurement, at least")
    chosen = parser.parse_args()
    jpegs = pictures(min(chosen.batch, 64), chosen.side)
    jpegs = [jpegs[number % len(jpegs)] for number in range(chosen.batch)]
    encoder = clip(chosen.model, Compute(chosen.batch, chosen.precision))
    limits = ImageLimits()
    images = [open_picture(jpeg, limits) for jpeg in jpegs]
    decode_s = timed(lambda: [open_picture(jpeg, limits) for jpeg in jpegs], chosen.seconds) / chosen.batch
    hash_s = timed(lambda: phash(images), chosen.seconds) / chosen.batch
    model_s = timed(lambda: encoder.run(images), chosen.seconds) / chosen.batch
    peer_s = timed(lambda: [encoder.alone(image) for image in images], chosen.seconds) / chosen.batch
    where, peak = machine()
    rate = encoder.flops / model_s
    figures = {
        "benchmark": "score",
        "machine": where,
        "model": f"{encoder.name}, random weights",
        "precision": chosen.precision,
        "batch": chosen.batch,
        "images_per_s": round(1 / (decode_s + hash_s + model_s), 2),
        "peer": "open_clip's encode_image in a plain loop, one picture at a time, fp32",
        "peer_model_images_per_s": round(1 / peer_s, 2),
        "ratio": round(peer_s / model_s, 2),
        "decode_images_per_s": round(1 / decode_s, 1),
        "phash_images_per_s": round(1 / hash_s, 1),
        "model_images_per_s": round(1 / model_s, 2),
        "gflop_per_image": round(encoder.flops / 1e9, 2),
        "gflop_per_s": round(rate / 1e9, 1),
        "share_of_peak": round(rate / peak, 3) if peak and chosen.precision == "bf16" else None,
    }
    for name, value in figures.items():
        print(f"{name:<22} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
