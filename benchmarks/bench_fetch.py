"""Fetch: our step with all its guards beside img2dataset's own command, on the same local server, pictures and worker
count.

python benchmarks/bench_fetch.py [--pictures N] [--hosts N] [--workers N] [--side PIXELS] [--repeats N]; the last line
is JSON.

The server is a process of its own on 127.0.0.1 to 127.0.0.N, so that limits for each host mean something; both commands
are timed from their start to their end, start-up included; peak memory is that of the command and all its children
together.
"""

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DISTINCT = 24
RECIPE = """
[input]
files = "{folder}/in.parquet"
[output]
root = "{folder}/ours"
[fetch]
allow_addresses = ["127.0.0.0/8"]
user_agent = "tessera-benchmark/0.1 (+mailto:nobody@example.org)"
store_side = {side}
shard_rows = {shard_rows}
concurrency = {threads}
[tier.pretrain]
size = 256
"""


def photograph(seed: int, width: int = 1024, height: int = 768) -> bytes:
    """Return a JPEG with the statistics of a photograph (amplitude falls with frequency), about 200 KB."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1
    planes = [
        np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency**1.2, s=(height, width))
        for _ in range(3)
    ]
    scaled = [(plane - plane.min()) / np.ptp(plane) * 255 for plane in planes]
    buffer = io.BytesIO()
    Image.fromarray(np.stack(scaled, axis=-1).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def serve(pictures: list[bytes], hosts: int, ready: "multiprocessing.Queue[int]") -> None:
    """Answer every /N.jpg with a picture and everything else with 404, connections kept open where asked."""
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for body in pictures
    ]
    nothing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1]
                writer.write(answers[int(path[1:-4]) % len(answers)] if path.endswith(b".jpg") else nothing)
                await writer.drain()
                if b"connection: close" in head.lower():
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        first = await asyncio.start_server(answer, address(0), 0, backlog=1024)
        port = first.sockets[0].getsockname()[1]
        others = [await asyncio.start_server(answer, address(number), port, backlog=1024) for number in range(1, hosts)]
        ready.put(port)
        await asyncio.gather(first.serve_forever(), *(server.serve_forever() for server in others))

    asyncio.run(main())


def address(number: int) -> str:
    """Return the loopback address of a host."""
    return f"127.0.{number // 250}.{number % 250 + 1}"


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents.setdefault(int((entry / "stat").read_text().rpartition(")")[2].split()[1]), []).append(
                    int(entry.name)
                )
            except OSError:
                continue
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def memory(pid: int) -> int:
    """Return the memory of a process and its descendants in bytes, shared pages counted once (PSS)."""
    total = 0
    for one in family(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += 1024 * next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
    return total


class Run(NamedTuple):
    """One timed command: wall-clock and processor seconds (children included), peak memory in bytes, pictures that
    came."""

    seconds: float
    cpu: float
    peak: int
    pictures: int = 0


def timed(command: list[str], log: Path) -> Run:
    """Run a command. Raises RuntimeError with the end of its output where it fails."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "HF_HUB_OFFLINE": "1",
        "no_proxy": "*",
        "OMP_NUM_THREADS": "1",
    }
    start = time.perf_counter()
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=log.parent)
        peak, done = [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.5):
                peak[0] = max(peak[0], memory(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    if status:
        raise RuntimeError(f"{command[:4]} ended with {status}: {log.read_text()[-2000:]}")
    return Run(seconds, used.ru_utime + used.ru_stime, peak[0])


def ours(folder: Path, options: argparse.Namespace) -> Run:
    shutil.rmtree(folder / "ours", ignore_errors=True)
    rows = -(-options.pictures // options.shards)
    (folder / "recipe.toml").write_text(
        RECIPE.format(folder=folder, side=options.side, shard_rows=rows, threads=options.threads)
    )
    command = [sys.executable, "-m", "pipeline.cli", "run", "--stage", "filter", "--step", "select,fetch"]
    run = timed(
        [*command, "--recipe", str(folder / "recipe.toml"), "--workers", str(options.workers)], folder / "ours.log"
    )
    return run._replace(pictures=successes(folder / "ours" / "pairs"))


def theirs(folder: Path, options: argparse.Namespace) -> Run:
    shutil.rmtree(folder / "theirs", ignore_errors=True)
    given = {
        "url_list": folder / "in.parquet", "input_format": "parquet", "url_col": "URL", "caption_col": "TEXT",
        "output_folder": folder / "theirs",
        "output_format": "webdataset", "image_size": options.side, "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
        "encode_quality": 95, "skip_reencode": True, "processes_count": options.workers,
        "thread_count": options.threads, "timeout": 20,
        "number_sample_per_shard": -(-options.pictures // options.shards), "enable_wandb": False,
    }  # fmt: skip
    command = [
        str(Path(sys.executable).with_name("img2dataset")),
        *(f"--{name}={value}" for name, value in given.items()),
    ]
    return timed(command, folder / "theirs.log")._replace(pictures=successes(folder / "theirs"))


def successes(folder: Path) -> int:
    """Count the pictures that came, from the shards' statistics: both write the same file."""
    return sum(json.loads(path.read_text())["successes"] for path in folder.glob("*_stats.json"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("pictures", 2000),
        ("hosts", 250),
        ("workers", 2),
        ("shards", 4),
        ("side", 512),
        ("threads", 64),
        ("repeats", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    pictures = [photograph(seed) for seed in range(DISTINCT)]
    ready: multiprocessing.Queue[int] = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(pictures, options.hosts, ready), daemon=True)
    server.start()
    port = ready.get()
    runs: dict[str, list[Run]] = {"ours": [], "img2dataset": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = [f"http://{address(number % options.hosts)}:{port}/{number}.jpg" for number in range(options.pictures)]
        pq.write_table(
            pa.table({"URL": urls, "TEXT": [f"picture number {n}" for n in range(len(urls))]}), folder / "in.parquet"
        )
        for _ in range(options.repeats):
            runs["ours"].append(ours(folder, options))
            runs["img2dataset"].append(theirs(folder, options))
            print(
                {
                    who: [f"{run.seconds:.1f} s, {run.cpu:.1f} s of CPU, {run.peak >> 20} MiB" for run in found]
                    for who, found in runs.items()
                },
                flush=True,
            )
    server.terminate()
    server.join()
    wrong = {who: run.pictures for who, found in runs.items() for run in found if run.pictures != options.pictures}
    if wrong:
        raise SystemExit(f"not all of {options.pictures} pictures came: {wrong}")
    rate = {who: options.pictures / min(run.seconds for run in found) for who, found in runs.items()}
    cpu = {who: min(run.cpu for run in found) / options.pictures for who, found in runs.items()}
    print(
        json.dumps(
            {
                "benchmark": "fetch",
                "unit": "images/s, start-up included",
                **vars(options),
                "picture_bytes": sum(map(len, pictures)) // len(pictures),
                **{who: round(value, 1) for who, value in rate.items()},
                "ratio": round(rate["ours"] / rate["img2dataset"], 2),
                "cpu_ms_per_image": {who: round(1000 * value, 1) for who, value in cpu.items()},
                "ratio_of_cpu": round(cpu["img2dataset"] / cpu["ours"], 2),
                "peak_mib": {who: max(run.peak for run in found) >> 20 for who, found in runs.items()},
                "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            }
        )
    )


if __name__ == "__main__":
    main()
