"""A tier's packed index beside its shards' own indexes: opening it, reading a shard's rows and every uid, in one run.

python benchmarks/bench_packed_index.py [SHARDS] [SAMPLES OF EACH]; the last line is JSON.
"""

import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from manifests.files import write_json
from manifests.shards import index_path
from tokenize_shards.packed_index import NAME, PackedIndex, write_packed_index
from tokenize_shards.samples import find_shards

ROWS = 64
"""Shards whose rows are read, spread over all."""


def make(folder: Path, shards: int, samples: int) -> None:
    """Write the indexes of shards that each have so many samples of codes and a note, and empty tars beside them."""
    rng = np.random.default_rng(0)
    for number in range(shards):
        keys, crcs = rng.bytes(16 * samples), rng.integers(0, 2**32, 2 * samples).tolist()
        members, at = [], 512
        for row in range(samples):
            key = keys[16 * row : 16 * row + 16].hex()
            for part, length in (("codes.npy", 640), ("json", 900)):
                members.append([f"{key}.{part}", at, length, crcs.pop()])
                at += 512 + -(-length // 512) * 512
        tar = folder / f"{number:05d}.tar"
        tar.touch()
        facts = {"shard": tar.name, "sha256": f"{number:064x}", "bytes": at + 512, "samples": samples}
        write_json(index_path(tar), {**facts, "members": members}, sealed=True)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `work` gives, and the CPU seconds that it took."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def megabytes() -> int:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    shards, samples = (int(word) for word in (sys.argv[1:] + ["5000", "1000"][len(sys.argv) - 1 :])[:2])
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "codes" / "tier"
        folder.mkdir(parents=True)
        make(folder, shards, samples)
        before = megabytes()
        _, write_s = timed(lambda: write_packed_index(folder))
        written = megabytes()
        index, open_s = timed(lambda: PackedIndex(folder / NAME))
        spread = np.random.default_rng(1).permutation(shards)[:ROWS].tolist()
        _, rows_s = timed(lambda: [len(index.rows(number)) for number in spread])
        total, uids_s = timed(lambda: sum(len(uid_N2) for _, uid_N2 in index.uids()))
        _, apart_s = timed(lambda: find_shards(folder.parent, "tier"))
        figures = {
            "benchmark": "packed_index",
            "unit": "CPU seconds",
            "shards": shards,
            "samples": total,
            "bytes_per_sample": round((folder / NAME).stat().st_size / total, 1),
            "write": round(write_s, 2),
            "open": round(open_s, 4),
            "open_each_index": round(apart_s, 2),
            "rows_of_one_shard_ms": round(1000 * rows_s / len(spread), 2),
            "every_uid": round(uids_s, 2),
            "memory_mb": {"before": before, "written": written, "read": megabytes()},
            "machine": platform.processor() or platform.machine(),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
