"""Write run folders that hold captions, the texts beside them, pHashes and fates: what an audit of captions reads."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.files import write_table
from manifests.schema import schema
from manifests.tables import CAPTIONED, SELECTED

FINAL = pa.schema(
    [
        *schema("source", "source_row", "uid", "url", "fate", "reason"),
        *schema("aesthetic_v1", "aesthetic_v2"),
        pa.field("tiers", pa.list_(pa.string())),
        pa.field("shard", pa.string()),
    ]
)
PLAN = schema("uid", "source", "source_row", "url", "text", "top_caption")
STARTS = ("ba", "be", "bi", "bo", "bu", "da", "de", "di", "do", "du", "la", "le", "li", "lo", "lu")
ENDS = ("river", "table", "garden", "street", "window", "bottle", "mountain", "kitchen", "bicycle", "bridge", "lantern")
WORDS = [f"{start}{end}" for start in STARTS for end in ENDS]
"""Words of filler: none is a term of a list."""


@dataclass
class Row:
    """One row of the input. `caption`: captioner -> what it said; `reason`: why the row was dropped."""

    number: int
    text: str | None = None
    top_caption: str | None = None
    captions: dict[str, str | None] = field(default_factory=dict)
    phash: int | None = None
    reason: str | None = None
    aesthetic: float | None = None
    more: dict[str, Any] = field(default_factory=dict)
    """Other columns of its caption rows: flags, origin, reason."""

    @property
    def uid(self) -> bytes:
        """Return its uid."""
        return hashlib.md5(str(self.number).encode()).digest()


def filler(draw: random.Random, words: int = 20) -> str:
    """Return a sentence of made-up words."""
    return " ".join(draw.choices(WORDS, k=words)).capitalize() + "."


def write_captions(root: Path, rows: Sequence[Row], shard_rows: int = 4000) -> Path:
    """Write a run folder of these rows, dropped ones without captions, in shards of so many rows; return it."""
    for number, start in enumerate(range(0, len(rows), shard_rows)):
        _write_shard(root, f"{number:05d}", rows[start : start + shard_rows])
    return root


def _write_shard(root: Path, name: str, rows: Sequence[Row]) -> None:
    head = [
        {"uid": row.uid, "source": "part", "source_row": row.number, "url": f"http://x.test/{row.number}"}
        for row in rows
    ]
    texts = [{**one, "text": row.text, "top_caption": row.top_caption} for one, row in zip(head, rows, strict=True)]
    _write(root / f"manifests/plan/fetch/{name}.parquet", texts, PLAN)
    _write(root / f"ledger/select/{name}.parquet", texts, SELECTED)
    fates = [
        {
            **one,
            "fate": "dropped" if row.reason else "kept",
            "reason": row.reason,
            "aesthetic_v2": row.aesthetic,
            "tiers": [] if row.reason else ["a"],
            "shard": name,
        }
        for one, row in zip(head, rows, strict=True)
    ]
    _write(root / f"ledger/final/{name}.parquet", fates, FINAL)
    hashes = [{"uid": row.uid, "phash": row.number if row.phash is None else row.phash} for row in rows]
    _write(root / f"scores/{name}.parquet", hashes, schema("uid", "phash"))
    for captioner in sorted({name for row in rows for name in row.captions}):
        said = [
            {"uid": row.uid, "captioner": captioner, "caption": row.captions[captioner], "flags": [], **row.more}
            for row in sorted(rows, key=lambda row: row.uid)
            if captioner in row.captions
        ]
        known = pa.schema([one for one in CAPTIONED if all(one.name in row for row in said)])
        more = [
            pa.field(key, pa.string())
            for key in ("origin",)
            if key not in known.names and any(key in row for row in said)
        ]
        _write(root / f"captions/{captioner}-{name}.parquet", said, pa.schema([*known, *more, *_reason(known)]))


def _reason(known: pa.Schema) -> list[pa.Field]:
    return [] if "reason" in known.names else list(schema("reason"))


def _write(path: Path, rows: list[dict[str, Any]], schema_: pa.Schema) -> None:
    write_table(path, pa.Table.from_pylist(rows, schema=schema_))
