"""`pipeline verify` on a folder of shards beside sha256sum on the same files, one at a time and in parallel, in one
run.

python benchmarks/bench_verify.py [--gb 1] [--shards 16] [--jobs 0] [--repeats 3]; the last line is JSON.
All files are read once before, so that what is timed is hashing and not the disk's mood.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from manifests.checksums import BLOCK
from manifests.shards import write_shard
from manifests.verify_shards import verify_folder

SAMPLE = 64 * 1024
"""Bytes of a sample's largest member: about a stored 256 px picture, or 32 crops of codes."""


def make(folder: Path, gigabytes: float, shards: int) -> int:
    """Write shards with their indexes; return the bytes of the tars."""
    rng = np.random.default_rng(0)
    count = max(1, round(gigabytes * 1e9 / shards / SAMPLE))
    for number in range(shards):
        samples = (
            (f"{number:08x}{n:024x}", {"codes.npy": rng.bytes(SAMPLE - 1024), "json": b"{}" * 100})
            for n in range(count)
        )
        write_shard(folder / f"{number:05d}.tar", samples, index=True)
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def best(work: Callable[[], None], repeats: int) -> float:
    """Return the shortest of a few timings, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    cores = asked.jobs or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = make(folder, asked.gb, asked.shards)
        tars = sorted(str(path) for path in folder.glob("*.tar"))

        def ours(jobs: int) -> None:
            report = verify_folder(folder, jobs)
            assert not report.findings, report.findings
            assert report.bytes == size

        def theirs(*command: str) -> None:
            subprocess.run(command, input="\0".join(tars), text=True, check=True, stdout=subprocess.DEVNULL)

        theirs("xargs", "-0", "cat")
        seconds = {
            "verify": best(lambda: ours(cores), asked.repeats),
            "sha256sum": best(lambda: theirs("xargs", "-0", "sha256sum"), asked.repeats),
            "sha256sum_parallel": best(
                lambda: theirs("xargs", "-0", "-P", str(cores), "-n", "1", "sha256sum"), asked.repeats
            ),
            "verify_one_job": best(lambda: ours(1), asked.repeats),
        }
        block = Path(tars[0])
        flipped = bytearray(block.read_bytes())
        flipped[len(flipped) // 2] ^= 1
        block.write_bytes(flipped)
        assert [finding.path for finding in verify_folder(folder, cores).wrong] == [block.name]
    rates = {f"{name}_gb_s": round(size / value / 1e9, 2) for name, value in seconds.items()}
    ratios = {
        "ratio_to_sha256sum": round(seconds["sha256sum"] / seconds["verify"], 2),
        "ratio_to_parallel_sha256sum": round(seconds["sha256sum_parallel"] / seconds["verify"], 2),
        "ratio_one_job": round(seconds["sha256sum"] / seconds["verify_one_job"], 2),
    }
    machine = {
        "machine": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }
    facts = {"gb": round(size / 1e9, 2), "shards": asked.shards, "jobs": cores, "block": BLOCK}
    print(json.dumps({"benchmark": "verify", **facts, **rates, **ratios, **machine}))


if __name__ == "__main__":
    main()
