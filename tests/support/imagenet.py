"""ImageNet's codes and labels as LlamaGen lays them out."""

import numpy as np

from pipeline.llamagen.ingest import ImportOptions
from tests.support.code_shards import CODEBOOK, GRID

N = GRID**2


def codes_of(number, crops=1):
    return np.random.default_rng([3, number]).integers(0, CODEBOOK, (1, N) if crops == 1 else (1, crops, N))


def imagenet(folder, count=4, **more):
    for kind in ("codes", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        np.save(folder / "codes" / f"{number}.npy", codes_of(number, crops=10))
        np.save(folder / "labels" / f"{number}.npy", np.array([number % 3]))
    return options(folder, jsonl=None, labels=folder / "labels", **more)


def options(folder, to=None, fingerprint="f" * 64, **more):
    more.setdefault("jsonl", folder / "jsonl")
    return ImportOptions(folder / "codes", to or folder / "to", "VQ-demo", fingerprint, 8 * GRID, **more)
