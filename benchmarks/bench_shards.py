"""Tar shards: our deterministic writer with its index, and our checking reader, beside webdataset's, in one run.

python benchmarks/bench_shards.py [SAMPLES]; the last line is JSON.
"""

import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import webdataset as wds

from manifests.shards import read_shard, write_shard

REPEATS = 3


def samples(count: int) -> list[tuple[str, dict[str, bytes]]]:
    """Return code-like samples: 640 bytes of codes and 900 bytes of JSON each."""
    rng = np.random.default_rng(0)
    return [(f"{n:032x}", {"codes.npy": rng.bytes(640), "json": b'{"x":"' + b"a" * 890 + b'"}'}) for n in range(count)]


def best(work: Callable[[], None]) -> float:
    """Return the shortest of a few timings, in seconds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    made = samples(count)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours.tar", Path(folder) / "theirs.tar"

        def write_theirs() -> None:
            with wds.TarWriter(str(theirs), mtime=0) as writer:
                for key, parts in made:
                    writer.write({"__key__": key, **parts})

        figures = {
            "write_ours": count / best(lambda: write_shard(ours, made, index=True) and None),
            "write_webdataset": count / best(write_theirs),
            "read_ours": count / best(lambda: sum(1 for _ in read_shard(ours)) and None),
            "read_webdataset": count
            / best(lambda: sum(1 for _ in wds.WebDataset(str(theirs), shardshuffle=False)) and None),
        }
    rounded = {name: round(value) for name, value in figures.items()}
    ratios = {kind: round(figures[f"{kind}_ours"] / figures[f"{kind}_webdataset"], 2) for kind in ("write", "read")}
    print(
        json.dumps(
            {
                "benchmark": "shards",
                "unit": "samples/s",
                "samples": count,
                **rounded,
                "ratio": ratios,
                "machine": platform.processor() or platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
