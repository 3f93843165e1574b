"""Measure `pipeline whatif` and the decide step on a generated run folder: seconds and peak memory for N rows, no
pictures needed.

    python benchmarks/bench_whatif.py [--rows 1000000] [--keep FOLDER]

The folder holds what select, fetch, score and dedup leave for so many rows (random values, LAION-COCO's shapes). The
peer is DuckDB counting the kept rows of each tier by the same thresholds over the same final ledger, without twins and
reasons.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.files import FORMAT, digest_of, write_json
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.schema import schema
from manifests.tables import CLUSTERS, MARKS, SELECTED
from pipeline.execution.in_flight import InFlight
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import Recipe
from pipeline.steps.decide import Decide
from pipeline.steps.dedup import Dedup
from pipeline.steps.fetch.step import PLANNED, Fetch
from pipeline.steps.score import Score
from pipeline.steps.select import Select

SHARD = 100_000
FETCH_SHARD = 10_000
THRESHOLD = 5.25


def recipe_of(root: Path) -> Recipe:
    """Return a recipe with LAION-COCO's rules and two tiers."""
    return parse_recipe(
        {
            "output": {"root": str(root)},
            "fetch": {"user_agent": "tessera-bench/1 (+mailto:nobody@example.org)"},
            "filter": {
                "rules": [
                    {"use": "size", "min_side": 256},
                    {"use": "aspect", "max": 3.0},
                    {"use": "watermark", "max": 0.5},
                    {"use": "nsfw", "max": 0.5},
                    {"use": "similarity", "min": 0.28, "column": "similarity"},
                ]
            },
            "score": {
                "use": ["aesthetic_v2"],
                "clip": {"weights": "stand-in"},
                "aesthetic_v2": {"weights": "stand-in"},
            },
            "tier": {
                "pretrain": {"size": 256, "rules": [{"use": "aesthetic", "min": 4.75, "model": "v2"}]},
                "finetune": {
                    "size": 512,
                    "rules": [{"use": "size", "min_side": 512}, {"use": "aesthetic", "min": 6.0, "model": "v2"}],
                },
            },
        }
    )


def binary(raw: np.ndarray) -> pa.Array:
    """Return (n, 16) bytes as uids."""
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(raw), [None, pa.py_buffer(np.ascontiguousarray(raw).tobytes())]
    )


def put(path: Path, table: pa.Table) -> None:
    """Write a table as the steps do, but without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table.replace_schema_metadata({"tessera_format": str(FORMAT)}), path, compression="zstd", row_group_size=65_536
    )


class Made:
    """Writes the folder, shard by shard, and the journals of its steps."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.root, self.rng = root, np.random.default_rng(seed)
        self.fetched = 0
        self.hashed: list[np.ndarray] = []

    def record(self, step: str, shard: str, paths: list[Path], rows: int) -> None:
        files = tuple(FileRecord.of(self.root, path) for path in paths)
        Journal(self.root, step).record(ShardRecord(shard, "", files, rows, rows))

    def select(self, number: int, rows: int) -> None:
        """Write one shard of `ledger/select` and the fetch shards of its survivors: 15 % dropped by rules, 3 %
        copies."""
        rng = self.rng
        uids = rng.integers(0, 256, (rows, 16), dtype=np.uint8)
        copies = rng.random(rows) < 0.03
        uids[copies] = uids[0]
        draw = rng.random(rows)
        reason = np.where(draw < 0.1, "size", np.where(draw < 0.15, "similarity", ""))
        kept = (reason == "") & ~copies
        kept[0] = True
        reason[0] = ""
        width = rng.integers(400, 2048, rows)
        height = (width * rng.uniform(0.7, 1.4, rows)).astype(np.int64)
        values = {
            "uid": binary(uids),
            "source": pa.array([f"part-{number:05d}.parquet"] * rows),
            "source_row": pa.array(np.arange(rows)),
            "url": pa.array([f"http://h{n % 977}.test/{number}/{n}.jpg" for n in range(rows)]),
            "reason": pa.array(reason, mask=reason == ""),
            "text": pa.array([f"alt text of picture {n} in shard {number}" for n in range(rows)], mask=reason != ""),
            "width": pa.array(width, mask=reason != ""),
            "height": pa.array(height, mask=reason != ""),
            "similarity": pa.array(0.28 + np.abs(rng.normal(0, 0.05, rows)), mask=reason != ""),
            "pwatermark": pa.array(rng.random(rows) / 2, mask=reason != ""),
            "punsafe": pa.array(rng.random(rows) / 2, mask=reason != ""),
        }
        arrays = [values[f.name].cast(f.type) if f.name in values else pa.nulls(rows, f.type) for f in SELECTED]
        table = pa.table(arrays, schema=SELECTED)
        path = self.root / "ledger" / "select" / f"{number:05d}.parquet"
        put(path, table)
        self.record("select", path.stem, [path], rows)
        planned = table.filter(pa.array(kept)).select(list(PLANNED)).cast(schema(*PLANNED))
        for start in range(0, planned.num_rows, FETCH_SHARD):
            self.fetch(planned.slice(start, FETCH_SHARD), uids[kept][start : start + FETCH_SHARD])

    def fetch(self, planned: pa.Table, uids: np.ndarray) -> None:
        """Write the plan, the attempts, the pairs' table and the scores of one shard: two thirds of the URLs live."""
        rng, rows, name = self.rng, planned.num_rows, f"{self.fetched:05d}"
        self.fetched += 1
        live = rng.random(rows) < 0.66
        put(self.root / "manifests" / "plan" / "fetch" / f"{name}.parquet", planned)
        reason = pa.array(np.where(live, "", "http_404"), mask=live)
        attempts = pa.table({"uid": planned["uid"], "attempt": pa.array(np.ones(rows, np.int16)), "reason": reason})
        size = {
            f"original_{side}": pa.array(rng.integers(200, 2048, rows).astype(np.int32), mask=~live)
            for side in ("width", "height")
        }
        keys = pa.array([uid.hex() for uid in planned["uid"].to_pylist()])
        paths = [self.root / "pairs" / f"{name}.parquet", self.root / "ledger" / "fetch" / f"{name}.parquet"]
        put(paths[0], pa.table({"key": keys, **size}))
        put(paths[1], attempts)
        self.record("fetch", name, [paths[0], *paths], rows)
        scores = {
            "uid": planned["uid"].filter(pa.array(live)),
            "aesthetic_v2": pa.array(rng.normal(5.2, 0.7, live.sum()).astype(np.float32)),
        }
        scores["phash"] = pa.array(rng.integers(0, 1 << 63, int(live.sum()), dtype=np.uint64))
        path = self.root / "scores" / f"{name}.parquet"
        put(path, pa.table({**scores, "reason": pa.nulls(int(live.sum()), pa.string())}))
        self.record("score", name, [path], int(live.sum()))
        self.hashed.append(uids[live])

    def dedup(self) -> None:
        """Write clusters: about a tenth of the pictures have a twin."""
        uids = np.concatenate(self.hashed)
        order = np.lexsort(uids.T[::-1])
        uids = uids[order]
        label = np.arange(len(uids))
        twin = self.rng.random(len(uids)) < 0.05
        label[1:][twin[1:]] = label[:-1][twin[1:]]
        table = pa.table([binary(uids), binary(uids[label])], schema=CLUSTERS)
        paths = [self.root / "dedup" / "00000.parquet", self.root / "ledger" / "marks.parquet"]
        put(paths[0], table)
        put(paths[1], MARKS.empty_table())
        self.record("dedup", "00000", paths, len(uids))


def build(root: Path, rows: int) -> None:
    """Write the folder up to dedup."""
    made = Made(root)
    for number, start in enumerate(range(0, rows, SHARD)):
        made.select(number, min(SHARD, rows - start))
    made.dedup()
    recipe = recipe_of(root)
    for kind in (Select, Fetch, Score, Dedup, Decide):
        step = kind(recipe, root)
        settings = json.loads(json.dumps(step.settings()))
        key = digest_of([step.name, step.version, settings]) if kind is not Decide else step.own_key
        write_json(step.journal.folder / "step.json", {"own_key": key, "settings": settings})


def part(root: Path, what: str) -> dict[str, Any]:
    """Do one part in this process; return its seconds and this process's peak memory."""
    recipe = recipe_of(root)
    started = time.perf_counter()
    found: dict[str, Any] = {}
    if what == "decide":
        step = Decide(recipe, root)
        step.journal.record(step.run(step.units()[0], InFlight()))
    elif what == "peer":
        found["kept"] = peer(root)
    else:
        from pipeline.analysis.whatif import ask

        plain = recipe.plain()
        plain["tier"]["pretrain"]["rules"][0]["min"] = THRESHOLD
        if what == "whatif_select":
            plain["filter"]["rules"][4]["min"] = 0.3
        answer = ask(parse_recipe(plain))
        found = {"kept": answer.then.kept, "exact": answer.exact}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"seconds": round(time.perf_counter() - started, 2), "gib": round(memory, 2), **found}


def peer(root: Path) -> int:
    """Return the rows that DuckDB counts as passing, near duplicates and reasons left out."""
    with duckdb.connect() as connection:
        rows = f"read_parquet('{root}/ledger/final/*.parquet')"
        query = f"""
            SELECT count(*) FROM {rows} WHERE (step IS NULL OR step = 'decide') AND least(width, height) >= 256
            AND greatest(width, height) <= 3.0 * least(width, height) AND pwatermark <= 0.5 AND punsafe <= 0.5
            AND similarity >= 0.28
            AND (aesthetic_v2 >= {THRESHOLD} OR (least(width, height) >= 512 AND aesthetic_v2 >= 6.0))"""
        return int((connection.execute(query).fetchone() or (0,))[0])


def main() -> None:
    """Build, measure each part in a process of its own, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="build the folder here and leave it; one that is there is used again")
    parser.add_argument("--part", choices=("decide", "whatif", "whatif_select", "peer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(part(options.keep, options.part)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder) / "run"
        if not (root / "dedup").is_dir():
            build(root, options.rows)
        found = {}
        for name in ("decide", "whatif", "whatif_select", "peer"):
            line = [sys.executable, __file__, "--part", name, "--keep", str(root)]
            found[name] = json.loads(
                subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
    ratio = round(found["whatif"]["seconds"] / max(found["peer"]["seconds"], 0.01), 2)
    machine = f"{platform.machine()}, {len(__import__('os').sched_getaffinity(0))} cores"
    print(
        json.dumps({"benchmark": "whatif", "rows": options.rows, **found, "ratio_to_peer": ratio, "machine": machine})
    )


if __name__ == "__main__":
    main()
