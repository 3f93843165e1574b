"""A run of eight rows as select, fetch, score and dedup leave it, in two shards of select and three of the fetch; the
second of these holds rows of both."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.files import write_table
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.plans import write_plan
from manifests.schema import DIGESTS, schema
from manifests.tables import CLUSTERS, MARKS, SELECTED
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import Recipe
from pipeline.steps.fetch.step import PLANNED
from tests.support.records import put_table, uid

SOURCES = {"a.parquet": (1, 2, 3, 4), "b.parquet": (5, 4, 7, 8)}
"""Source -> the numbers of the uids of its rows: 4 comes twice."""
SHARDS = ((1, 3), (4, 5), (7, 8))
"""Numbers of the uids of each fetch shard; row 2 is dropped by select."""
PICTURES = {1: (600, 6.0), 4: (300, 5.0), 5: (600, 6.5), 7: (400, 6.0)}
"""Number -> side of the decoded picture, pixels, and its aesthetic score; 1 and 5 are near duplicates."""
ATTEMPTS = [("uid", pa.binary(16)), ("last", pa.bool_()), ("reason", pa.string())]
PAIRS = [("key", pa.string()), ("original_width", pa.int32()), ("original_height", pa.int32())]
PLACEHOLDERS = (7,)
FATES = {
    ("a.parquet", 0): ("near_duplicate", "decide", []),
    ("a.parquet", 1): ("size", "select", []),
    ("a.parquet", 2): ("http_404", "fetch", []),
    ("a.parquet", 3): (None, None, ["pretrain"]),
    ("b.parquet", 0): (None, None, ["pretrain", "finetune"]),
    ("b.parquet", 1): ("exact_duplicate", "fetch", []),
    ("b.parquet", 2): ("placeholder", "decide", []),
    ("b.parquet", 3): ("removed", "fetch", []),
}
"""(source, row) -> reason, step, tiers."""


def undecided_recipe(root: Path, aesthetic: float = 4.75) -> Recipe:
    """Return the recipe of the run; `aesthetic`: the least score of the tier pretrain."""
    finetune = [{"use": "size", "min_side": 512}, {"use": "aesthetic", "min": 6.0, "model": "v2"}]
    return parse_recipe(
        {
            "output": {"root": str(root)},
            "fetch": {"user_agent": "tessera-test/1 (+mailto:nobody@example.org)", "shard_rows": 2},
            "filter": {"rules": [{"use": "size", "min_side": 256}]},
            "score": {
                "use": ["aesthetic_v2"],
                "clip": {"weights": "stand-in"},
                "aesthetic_v2": {"weights": "stand-in"},
            },
            "tier": {
                "pretrain": {"size": 256, "rules": [{"use": "aesthetic", "min": aesthetic, "model": "v2"}]},
                "finetune": {"size": 512, "rules": finetune},
            },
        }
    )


def undecided_run(root: Path, digests: bool = True) -> Path:
    """Write the run below `root`, and return it; its pairs are of before without `digests`."""
    planned: dict[int, dict[str, Any]] = {}
    for number, (source, numbers) in enumerate(SOURCES.items()):
        rows = []
        for place, n in enumerate(numbers):
            row = dict.fromkeys(SELECTED.names) | {"uid": uid(n), "source": source, "source_row": place, "url": _url(n)}
            rows.append(row | ({"reason": "size"} if n == 2 else {"width": 1000, "height": 1000}))
            planned.setdefault(n, {name: rows[-1][name] for name in PLANNED})
        put_table(root, "select", f"ledger/select/{number:05d}.parquet", rows, SELECTED)
    tables = [pa.Table.from_pylist([planned[n] for n in numbers], schema=schema(*PLANNED)) for numbers in SHARDS]
    write_plan(root, "fetch", [(f"{number:05d}", table) for number, table in enumerate(tables)])
    for number, numbers in enumerate(SHARDS):
        _fetched(root, f"{number:05d}", numbers, digests)
    clusters = [{"uid": uid(n), "cluster": uid(1 if n == 5 else n)} for n in sorted(PICTURES)]
    put_table(root, "dedup", "dedup/00000.parquet", clusters, CLUSTERS)
    marks = [{"uid": uid(n), "reason": "placeholder", "detail": "a list"} for n in PLACEHOLDERS]
    write_table(root / "ledger" / "marks.parquet", pa.Table.from_pylist(marks, schema=MARKS))
    paths = (root / "dedup" / "00000.parquet", root / "ledger" / "marks.parquet")
    _record(root, "dedup", "00000", paths, len(clusters))
    return root


def _url(n: int) -> str:
    return f"http://pictures.test/{n}.jpg"


def _fetched(root: Path, name: str, numbers: tuple[int, ...], digests: bool) -> None:
    """Write attempts, pairs and scores of one shard: a row that failed first, what came of it, pictures alone."""
    attempts = [{"uid": uid(numbers[0]), "last": False, "reason": "timeout"}]
    reasons = {3: "http_404", 8: "removed"}
    attempts += [{"uid": uid(n), "last": True, "reason": reasons.get(n)} for n in numbers]
    pairs = []
    for n in numbers:
        side = PICTURES[n][0] if n in PICTURES else None
        hexes = {digest: f"{n:02x}" * width for digest, width in zip(DIGESTS, (16, 20, 32, 32), strict=True)}
        given = hexes if n in PICTURES else dict.fromkeys(DIGESTS)
        pairs.append({"key": uid(n).hex(), "original_width": side, "original_height": side, **given})
    scores = [{"uid": uid(n), "aesthetic_v2": PICTURES[n][1], "reason": None} for n in numbers if n in PICTURES]
    kinds = [*PAIRS, *(((digest, pa.string()) for digest in DIGESTS) if digests else ())]
    tables = {
        "pairs": (pairs, pa.schema(kinds)),
        "ledger/fetch": (attempts, pa.schema(ATTEMPTS)),
        "scores": (scores, schema("uid", "aesthetic_v2", "reason")),
    }
    paths = [root / folder / f"{name}.parquet" for folder in tables]
    for path, (rows, kind) in zip(paths, tables.values(), strict=True):
        write_table(path, pa.Table.from_pylist(rows, schema=kind))
    tar = root / "pairs" / f"{name}.tar"
    tar.write_bytes(b"")
    _record(root, "fetch", name, (tar, paths[0], paths[1]), len(numbers))
    _record(root, "score", name, paths[2:], len(scores))


def _record(root: Path, step: str, name: str, paths: Any, rows: int) -> None:
    files = tuple(FileRecord.of(root, path) for path in paths)
    Journal(root, step).record(ShardRecord(name, "key", files, rows, rows))
