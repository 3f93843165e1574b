"""Read the same shards through the packed index and through webdataset, in turns, and show what a training run waits.

`python benchmarks/bench_loader.py [SHARDS [SAMPLES]]`: shards of stand-in codes are written to a temporary folder.
Samples/s are of CPU seconds of one thread; webdataset's pipeline is its own: tars in turn, a shuffle buffer of 1,000,
decoding of .npy and .json, batches. Both give codes and captions; ours also checks each CRC-32 and mixes windows.
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.gpt import build_gpt
from pipeline.training.loader import CodeLoader
from tests.support.code_shards import CODEBOOK, write_codes
from tokenize_shards.packed_index import write_packed_index

BATCH, ROUNDS, BATCHES = 64, 5, 60
SMALL = 8
"""Pictures of a step of the training loop."""
SHARE = 0.5
"""Of the loader's own rate, at which a consumer takes batches where stalls are measured."""


def webdataset_batches(folder: Path) -> Iterator[Any]:
    import webdataset

    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    shards = webdataset.WebDataset(tars, shardshuffle=len(tars), nodesplitter=None, empty_check=False, seed=0)
    return iter(shards.shuffle(1000).decode().to_tuple("codes.npy", "json").batched(BATCH, collation_fn=None).repeat())


def rate(batches: Iterator[Any], size: Callable[[Any], int]) -> float:
    """Return samples per CPU second of this thread."""
    started = time.thread_time()
    count = sum(size(batch) for batch in itertools.islice(batches, BATCHES))
    return count / (time.thread_time() - started)


def stalls(folder: Path, pace: float) -> np.ndarray[Any, Any]:
    """Return the milliseconds that a consumer waited for each of some batches which it takes `pace` seconds apart."""
    waited, loader = [], iter(CodeLoader(folder, BATCH))
    next(loader)
    for _ in range(400):
        time.sleep(pace)
        asked = time.perf_counter()
        next(loader)
        waited.append(1e3 * (time.perf_counter() - asked))
    loader.close()  # type: ignore[attr-defined]
    return np.array(waited)


def headspace(folder: Path) -> dict[str, float]:
    """Return steps/s of a small training loop with batches from the loader, and with the same batches held ready."""
    torch.manual_seed(0)
    gpt = build_gpt("GPT-demo", "class", 8, vocab=CODEBOOK).train()
    optimizer = torch.optim.AdamW(gpt.parameters(), 1e-4)
    labels = torch.zeros(SMALL, dtype=torch.int64)

    def steps(batches: Iterator[Any]) -> float:
        started = time.perf_counter()
        for batch in itertools.islice(batches, 6):
            gpt(torch.from_numpy(batch.codes_BN), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        return 6 / (time.perf_counter() - started)

    loader = iter(CodeLoader(folder, SMALL))
    held = list(itertools.islice(loader, 6))
    pairs = [(steps(loader), steps(iter(held))) for _ in range(3)]
    loader.close()  # type: ignore[attr-defined]
    read, cached = (max(column) for column in zip(*pairs, strict=True))
    return {"steps_per_s": round(read, 3), "steps_per_s_cached": round(cached, 3), "headspace": round(cached / read, 3)}


def main(shards: int, samples: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        write_codes(Path(scratch), (samples,) * shards)
        folder = Path(scratch) / "codes" / "pretrain"
        write_packed_index(folder)
        ours = iter(CodeLoader(folder, BATCH, prefetch=0))
        theirs = webdataset_batches(folder)
        next(ours), next(theirs)
        pairs = [(rate(ours, len), rate(theirs, len)) for _ in range(ROUNDS)]
        mine, other = (sorted(column)[ROUNDS // 2] for column in zip(*pairs, strict=True))
        ratios = sorted(one / two for one, two in pairs)
        spread = f"{ratios[ROUNDS // 2]:.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"ours {mine:,.0f} samples/s, webdataset {other:,.0f}: {spread}")
        waited = stalls(folder, BATCH / mine / SHARE)
        p50, p99 = np.percentile(waited, [50, 99])
        print(f"stalls at half the loader's rate: median {p50:.2f} ms, p99 {p99:.2f} ms, longest {waited.max():.2f} ms")
        head = headspace(folder)
        print(f"a training loop: {head['steps_per_s']} steps/s, with data held ready {head['steps_per_s_cached']}")
    found = {
        "samples_per_s": round(mine), "webdataset_samples_per_s": round(other), "ratio": round(ratios[ROUNDS // 2], 2),
        "stall_p99_ms": round(float(p99), 2), **head,
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:3], "20", "1000"][:2]))
