"""filter / dedup: the most frequent pHashes, what stands under each, and which of them are placeholders.

Counts of pHashes come part by part; only pictures of the pHashes that are shown or may be placeholders are held against
their URLs and texts, shard by shard, of which digests meet by pHash.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.fetch.url import identity
from filters.hamming import Array, distinct
from filters.survivors import halves
from manifests.files import read_table
from manifests.journal import ShardRecord, records_of
from manifests.plans import planned_tables

TOP = 100
"""Hashes in the report of the most frequent ones."""
HOST = "^[^:]+://(?:[^/?#@]*@)?(?P<host>[^/?#:]*)"
TOLD = ("url", "text", "host")
"""What is counted of a pHash's pictures; a URL is what its spellings share."""
SPELLED = pa.schema(
    [
        *((name, pa.uint64()) for name in ("phash", "high", "low")),
        *((f"{name}_{half}", pa.uint64()) for name in TOLD for half in ("high", "low")),
        ("texts", pa.uint8()),
    ]
)
"""A picture: its pHash, both halves of its uid, digests of what stands with it, and 0 where it has no text."""
Counts = Iterable[tuple[Array, Array]]
"""Distinct pHashes and the number of pictures of each, in parts that share no pHash."""


def counted(hashes: Array) -> tuple[Array, Array]:
    """Return the distinct ones of some pHashes, in order, and how often each comes."""
    ordered = np.sort(hashes)
    begins = np.ones(len(ordered), np.bool_)
    begins[1:] = ordered[1:] != ordered[:-1]
    places = np.flatnonzero(begins)
    return ordered[places], np.diff(np.append(places, len(ordered)))


def asked_for(counts: Counts, least: int) -> Array:
    """Return the pHashes that are shown or may be placeholders, in order, and how many pictures each has, (2, N)
    uint64: the TOP most frequent ones that come twice or more, and where `least` is not 0 all that come as often.

    What this returns of some parts stands for them in the counts of all.
    """
    nobody = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    top, often = nobody, [nobody]
    for hashes, numbers in counts:
        several = numbers > 1
        hashes, numbers = hashes[several], numbers[several]
        enough = numbers >= least if least else np.zeros(len(numbers), np.bool_)
        often.append((hashes[enough], numbers[enough]))
        top = _first(np.concatenate([top[0], hashes]), np.concatenate([top[1], numbers]))
    hashes, numbers = (np.concatenate([part[place] for part in (top, *often)]) for place in (0, 1))
    known = distinct(hashes)
    order = np.argsort(hashes, kind="stable")
    return np.stack([known, numbers[order][np.searchsorted(hashes[order], known)].astype(np.uint64)])


def _first(hashes: Array, numbers: Array) -> tuple[Array, Array]:
    order = np.lexsort((hashes, -numbers))[:TOP]
    return hashes[order], numbers[order]


def of_shard(root: Path, scores: str, plan: Path, asked: Array) -> Iterator[pa.RecordBatch]:
    """Yield the pictures of one shard that have a pHash that is asked for."""
    table = read_table(root / scores, ["uid", "phash"])
    if not len(asked) or not plan.exists():
        return
    table = table.filter(pc.is_in(table["phash"], value_set=pa.array(asked, pa.uint64())))
    if not table.num_rows:
        return
    planned = read_table(plan, ["uid", "url", "text"])
    place = pc.index_in(table["uid"], value_set=planned["uid"].combine_chunks())
    table, place = table.filter(pc.is_valid(place)), place.drop_null()
    urls, texts = planned["url"].take(place), planned["text"].take(place)
    values: dict[str, list[str | None]] = {
        "url": [identity(url) for url in urls.to_pylist()],
        "text": texts.to_pylist(),
    }
    values["host"] = _hosts(urls).to_pylist()
    uids = halves(table["uid"])
    columns = [table["phash"].to_numpy().astype(np.uint64), uids[:, 0], uids[:, 1]]
    columns += [half for name in TOLD for half in _digests(values[name])]
    columns.append(texts.is_valid().to_numpy().astype(np.uint8))
    yield pa.record_batch([pa.array(column) for column in columns], schema=SPELLED)


def _hosts(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_lower(pc.fill_null(pc.struct_field(pc.extract_regex(urls, HOST), "host"), ""))


def _digests(values: list[str | None]) -> tuple[Array, Array]:
    raw = b"".join(hashlib.md5((value or "").encode(errors="surrogatepass")).digest() for value in values)
    numbers = np.frombuffer(raw, "<u8").reshape(-1, 2)
    return numbers[:, 0], numbers[:, 1]


@dataclass
class Frequent:
    """What is known of the pHashes that are asked for: the most frequent ones with their numbers, and those that make a
    placeholder. A placeholder is one picture under `least` different URLs and as many different texts, and more; 0
    makes none."""

    least: int

    def __post_init__(self) -> None:
        self._top: list[dict[str, Any]] = []
        self._placeholders = [np.zeros(0, np.uint64)]

    def add(self, rows: pa.Table) -> None:
        """Add all pictures, as SPELLED, of some pHashes."""
        values = {name: rows[name].to_numpy() for name in SPELLED.names}
        hashes, pictures = counted(values["phash"])
        has_text = values["texts"] > 0
        urls, texts, hosts = (
            _distinct(values, name, hashes, has_text if name == "text" else slice(None)) for name in TOLD
        )
        if self.least:
            self._placeholders.append(hashes[(urls >= self.least) & (texts >= self.least)])
        shown = _first(hashes, pictures)[0]
        for place in np.searchsorted(hashes, shown).tolist():
            own = values["phash"] == hashes[place]
            high, low = values["high"][own], values["low"][own]
            first = high.min()
            entry = {"phash": f"{int(hashes[place]):016x}", "pictures": int(pictures[place])}
            entry |= {"urls": int(urls[place]), "hosts": int(hosts[place]), "texts": int(texts[place])}
            self._top.append({**entry, "example": f"{int(first):016x}{int(low[high == first].min()):016x}"})
        self._top = first_of_all(self._top)

    def found(self) -> tuple[list[dict[str, Any]], Array]:
        """Return the most frequent ones, in order, and the placeholders, in order."""
        return self._top, np.sort(np.concatenate(self._placeholders))


def first_of_all(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the TOP entries of pHashes with the most pictures, in order."""
    return sorted(entries, key=lambda one: (-one["pictures"], one["phash"]))[:TOP]


def _distinct(values: dict[str, Array], name: str, hashes: Array, which: Any) -> Array:
    """Return of each pHash how many different values of that name its pictures have."""
    keys = [values[f"{name}_low"][which], values[f"{name}_high"][which], values["phash"][which]]
    order = np.lexsort(keys)
    new = np.zeros(len(order), np.bool_)
    new[:1] = True
    for key in keys:
        ordered = key[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    own = np.searchsorted(hashes, keys[2][order][new])
    return np.bincount(own, minlength=len(hashes))


def shards(root: Path) -> list[tuple[ShardRecord, Path]]:
    """Return the records of scores, each with the table of the plan that has its rows."""
    plans = planned_tables(root, "fetch")
    folder = plans[0].parent if plans else root
    return [(record, folder / f"{record.shard}.parquet") for record in records_of(root, "score")]


def frequent_hashes(root: Path, least: int) -> tuple[list[dict[str, Any]], Array]:
    """Return the most frequent pHashes of a run with what stands under each, and those that make a placeholder; in this
    process, which holds all pHashes."""
    known = shards(root)
    hashes = [read_table(root / record.files[0].path, ["phash"])["phash"].drop_null() for record, _ in known]
    all_ = np.concatenate([np.zeros(0, np.uint64), *(one.to_numpy().astype(np.uint64) for one in hashes)])
    asked = asked_for([counted(all_)], least)[0]
    batches = [batch for record, plan in known for batch in of_shard(root, record.files[0].path, plan, asked)]
    frequent = Frequent(least)
    frequent.add(pa.Table.from_batches(batches, SPELLED))
    return frequent.found()
