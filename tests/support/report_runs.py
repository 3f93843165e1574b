"""Write small run folders by hand for the report: rows of each fate, their pictures, a truth table, a training run."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from manifests.files import write_json, write_table
from manifests.shards import write_shard

EVIL = '<script>alert("x")</script>'
FINAL = pa.schema(
    [
        ("source", pa.string()),
        ("source_row", pa.int64()),
        ("uid", pa.binary(16)),
        ("url", pa.string()),
        ("fate", pa.string()),
        ("reason", pa.string()),
        ("tiers", pa.list_(pa.string())),
        ("conse", pa.float32()),
        ("conse_origin", pa.string()),
    ]
)
FATES = (None, None, None, "near_duplicate", "similarity", "http_404")
"""Reasons of every six rows: three kept, a near duplicate of the first, a low score, one that never came."""


def uid(number: int) -> bytes:
    """Return the 16 bytes that stand for row `number`."""
    return hashlib.md5(str(number).encode()).digest()


def flat_jpeg(number: int, width: int = 90, height: int = 60) -> bytes:
    """Return a JPEG of one colour, which tells the rows apart."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), (number * 5 % 256, 120, 90)).save(out, "JPEG")
    return out.getvalue()


def write_run(root: Path, rows: int = 60) -> Path:
    """Write a run of `rows` rows (a multiple of six) as FATES has it; every caption ends with EVIL."""
    final = [
        {
            "source": "part.parquet",
            "source_row": n,
            "uid": uid(n),
            "url": f"http://h.test/{n}.jpg?a=1&b=2",
            "fate": "dropped" if FATES[n % 6] else "kept",
            "reason": FATES[n % 6],
            "tiers": [] if FATES[n % 6] else ["pretrain", *(["finetune"] if n % 6 else [])],
            "conse": n / 100,
            "conse_origin": "conse",
        }
        for n in range(rows)
    ]
    write_table(root / "ledger" / "final" / "00000.parquet", pa.Table.from_pylist(final, schema=FINAL))
    here = [n for n in range(rows) if n % 6 != 5]
    samples = [(uid(n).hex(), {"jpg": flat_jpeg(n), "txt": f"words {n} {EVIL}".encode(), "json": b"{}"}) for n in here]
    write_shard(root / "pairs" / "00000.tar", samples)
    write_table(root / "pairs" / "00000.parquet", pa.table({"key": [uid(n).hex() for n in here]}))
    clusters = [{"uid": uid(n), "cluster": uid(n - n % 6)} for n in here if n % 6 in (0, 3)]
    write_table(
        root / "dedup" / "00000.parquet",
        pa.Table.from_pylist(clusters, schema=pa.schema([("uid", pa.binary(16)), ("cluster", pa.binary(16))])),
    )
    write_json(root / "manifests" / "filter.json", filter_manifest(rows // 6))
    return root


def filter_manifest(each: int) -> dict[str, Any]:
    """Return the manifest of a run of six times `each` rows."""
    return {
        "stage": "filter",
        "digest": "5f" * 32,
        "rows_in": 6 * each,
        "kept": 3 * each,
        "weights": [
            {"name": "aesthetic_v2", "sha256": "ab" * 32, "stand_in": True},
            {"name": "open_nsfw", "sha256": "cd" * 32, "stand_in": False},
        ],
        "losses": [{"file": "broken.parquet", "fault": "cut"}],
        "dropped": {"near_duplicate": each, "similarity": each, "http_404": each},
        "tiers": {"pretrain": 3 * each, "finetune": 2 * each},
    }


def write_truth(path: Path, rows: int = 60) -> None:
    """Write the truth table of `write_run`: everything went as planted."""
    truth = [
        {
            "source": "part.parquet",
            "source_row": n,
            "uid": uid(n),
            "url": "",
            "text": f"alt text of row {n}",
            "kind": FATES[n % 6] or "clean",
            "picture": "met/1",
            "target": FATES[n % 6],
            "exact": n % 6 == 5,
            "group": f"g{n // 6}" if n % 6 in (0, 3) else None,
            "matched": n % 6 < 3,
            "alpha": None,
            "tiled": None,
        }
        for n in range(rows)
    ]
    write_table(path, pa.Table.from_pylist(truth))


def write_input_record(root: Path, folder: Path) -> None:
    """Say in the run's manifest of its input that the rows came from `folder`/input/part.parquet."""
    url = (folder / "input" / "part.parquet").as_uri()
    write_json(root / "manifests" / "input.json", {"files": [{"url": url}]})


def write_training(root: Path) -> None:
    """Write a training run of 50 steps whose loss falls from 6 to 3.55, its last line cut, and what it memorised."""
    train = root / "train" / "pretrain"
    train.mkdir(parents=True)
    lines = [json.dumps({"step": n, "loss": 6 - n / 20}) for n in range(50)]
    (train / "metrics.jsonl").write_text("\n".join([*lines, "half a li"]))
    Image.new("RGB", (40, 40)).save(train / "memorised.png")
    (train / "memorised.json").write_text(
        json.dumps({"pictures": 128, "top1": 0.97, "chance_top1": 1 / 128, "says": "this is memorising"})
    )
