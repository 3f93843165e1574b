"""Measure perceptual hashing against imagehash, and clustering: recall against brute force, time and memory at size."""

import json
import platform
import resource
import sys
import time

import imagehash
import numpy as np
from PIL import Image

from filters.dedup import Array, clusters, first_of_each, phash, phash_of_grey
from filters.hamming import choose_bands, pairs_of_equal, sampled

RADIUS = 6


def flipped(rng: np.random.Generator, hashes: Array, most: int) -> Array:
    """Return the hashes with up to `most` bits of each turned."""
    turned = hashes.copy()
    for _ in range(most):
        turned ^= np.uint64(1) << rng.integers(0, 64, len(hashes), dtype=np.uint64)
    return turned


def uniform(rng: np.random.Generator, count: int) -> Array:
    """Random hashes, a tenth of them near duplicates of others."""
    seeds = rng.integers(0, 2**64, count - count // 10, dtype=np.uint64)
    return np.concatenate([seeds, flipped(rng, seeds[: count // 10], RADIUS)])


def skewed(rng: np.random.Generator, count: int) -> Array:
    """As of real pictures: half of the bits set, low frequencies alike in many, two hot hashes, a dense crowd, near
    duplicates.

    A hash is a sign pattern of 63 normal numbers about one of 1,000 scenes, cut at its median, and the bit of the mean.
    """
    scenes = rng.normal(size=(1000, 63))
    made = np.empty(count, np.uint64)
    for start in range(0, count, 100_000):
        size = min(100_000, count - start)
        low = np.empty((size, 64), np.float32)
        low[:, 0] = 9.0
        low[:, 1:] = 0.6 * scenes[rng.integers(0, 1000, size)] + rng.normal(size=(size, 63))
        bits = low > np.median(low, axis=1, keepdims=True)
        made[start : start + size] = np.packbits(bits, axis=1).view(">u8")[:, 0]
    tenth = count // 10
    made[:tenth] = flipped(rng, made[tenth : 2 * tenth], 4)
    made[-count // 50 :] = made[0]  # one picture again and again
    made[-count // 100 :] = np.uint64(1) << np.uint64(63)  # blanks
    made[-count // 200 :] ^= rng.integers(0, 256, len(made[-count // 200 :]), dtype=np.uint64)  # blanks with a speck
    return rng.permutation(made)


def by_brute_force(hashes: Array) -> Array:
    """Cluster by comparing every hash with every other."""
    distinct, first, back = np.unique(hashes, return_index=True, return_inverse=True)
    ones, others = [], []
    for start in range(0, len(distinct), 256):
        one, other = np.nonzero(np.bitwise_count(distinct[start : start + 256, None] ^ distinct[None, :]) <= RADIUS)
        ones.append(distinct[one + start])
        others.append(distinct[other])
    return first_of_each(distinct, first, np.concatenate(ones), np.concatenate(others))[back]


def candidates(hashes: Array) -> tuple[int, float]:
    """Return (tables, pairs to compare) of the chosen cut, counted on a sample and scaled up."""
    distinct = np.unique(hashes)
    bands, few = choose_bands(distinct, RADIUS), sampled(distinct)
    scale = (len(distinct) / len(few)) ** 2
    return len(bands.tables), sum(pairs_of_equal(few & np.uint64(mask)) for mask in bands.tables) * scale


def timed(hashes: Array) -> dict[str, float]:
    """Cluster on two threads; return seconds of clock and of processor, and the clusters found."""
    clock, cpu = time.monotonic(), time.process_time()
    labels = clusters(hashes, RADIUS, workers=2)
    clock, cpu = time.monotonic() - clock, time.process_time() - cpu
    tables, pairs = candidates(hashes)
    found = int((labels != np.arange(len(labels))).sum())
    return {
        "seconds": round(clock, 1),
        "cpu_seconds": round(cpu, 1),
        "tables": tables,
        "candidate_pairs": float(f"{pairs:.2g}"),
        "joined": found,
    }


def hashing(count: int) -> dict[str, float]:
    """Return pictures/s of CPU time: the transform alone and the whole, theirs and ours, in one run."""
    rng = np.random.default_rng(0)
    small = [
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((512, 384), Image.Resampling.BICUBIC)
        for _ in range(count)
    ]
    grey = [image.convert("L").resize((32, 32), Image.Resampling.LANCZOS) for image in small]
    stack = np.stack([np.asarray(image, np.float64) for image in grey])
    theirs_is_ours = [str(imagehash.phash(image)) for image in small] == [f"{value:016x}" for value in phash(small)]
    assert theirs_is_ours, "phash differs from imagehash"
    figures = {
        "imagehash": lambda: [imagehash.phash(image) for image in small],
        "ours": lambda: [phash(small[start : start + 64]) for start in range(0, count, 64)],
        "imagehash_32px": lambda: [imagehash.phash(image) for image in grey],
        "ours_32px": lambda: [phash_of_grey(stack[start : start + 256]) for start in range(0, count, 256)],
    }
    rates = {}
    for name, work in figures.items():
        seconds = []
        for _ in range(3):
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
        rates[name] = round(count / min(seconds))
    return rates


def main() -> None:
    """Run with the number of hashes, by default a million; 10000000 is the one that counts."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rng = np.random.default_rng(0)
    recall = {}
    for name, make in (("uniform", uniform), ("skewed", skewed)):
        some = make(rng, 50_000)
        wanted, got = by_brute_force(some), clusters(some, RADIUS)
        joined = wanted != np.arange(len(some))
        recall[name] = float((got == wanted)[joined].mean())
        assert (got == wanted).all(), f"{name}: clusters differ from brute force"
    runs = {}
    for name, make in (("uniform", uniform), ("skewed", skewed)):
        hashes = make(rng, count)
        runs[name] = timed(hashes)
        print(name, runs[name], flush=True)
    rates = hashing(1024)
    print(
        json.dumps(
            {
                "benchmark": "dedup",
                "hashes": count,
                "radius": RADIUS,
                "recall_at_50k": recall,
                **runs,
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
                "phash_per_s": rates,
                "ratio": round(rates["ours_32px"] / rates["imagehash_32px"], 2),
                "ratio_with_resize": round(rates["ours"] / rates["imagehash"], 2),
                "machine": platform.processor() or platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
