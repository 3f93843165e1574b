"""Lead a URL to rows of it that were answered before, under other captions or in other shards: nobody is asked for it
again.

An index, written by the driver before any unit starts (`.earlier/fetch/urls/`), holds a hash of the URL, whatever
its spelling, and the uid of each row that lies aside under a URL that will be asked for, and of each planned row whose
URL stands in several shards: 28 bytes a row. What a row's answer is does not depend on who asked for it, so the bytes
of a run are the same in whatever order its shards end.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.fetch.url import identity
from manifests.aside import ASIDE, UNDER_WAY, groups
from manifests.files import FormatError, has_columns, read_field, read_table, write_json, writing
from manifests.journal import Journal
from manifests.plans import planned_tables
from manifests.query import connect, files_sql
from manifests.shards import ShardError
from manifests.store import mapped
from pipeline.execution.reuse import stamped
from pipeline.steps.fetch.attempts import Past, carried, history, pasts
from pipeline.steps.fetch.limits import Terms
from pipeline.steps.fetch.pairs import Attempt, Result, Spool

ENTRY = np.dtype([("url", "<u8"), ("shard", "<u4"), ("uid", "V16")])
ASIDE_ROW = 2**32 - 1
"""In the place of a shard's number: the row lies aside."""
Entries = np.ndarray[Any, np.dtype[Any]]


def note_urls(root: Path, made_by: Collection[str], pending: Collection[str]) -> None:
    """Write the index for the shards that will be made. `made_by`: digests of the settings under which rows that lie
    aside may be used."""
    path = _path(root)
    path.unlink(missing_ok=True)
    plans = planned_tables(root, "fetch")
    try:
        aside = list(_aside(root, made_by, [plan for plan in plans if plan.stem in pending]))
    except FormatError:  # a table whose footer is whole and whose pages are not: what uses it names it
        aside = []
    parts = [*aside, *_repeated(root, plans)]
    entries = np.concatenate([np.zeros(0, ENTRY), *parts])
    if not len(entries):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, entries[np.argsort(entries["url"], kind="stable")])
    write_json(path.with_suffix(".json"), {"shards": [plan.stem for plan in plans]})


def _aside(root: Path, made_by: Collection[str], plans: list[Path]) -> Iterator[Entries]:
    """Yield the rows that lie aside under the URLs of planned rows that do not: those will be asked for."""
    tables = [
        group.pairs
        for place in (ASIDE, UNDER_WAY)
        for group in groups(root, place, "fetch")
        if group.made_by in made_by and has_columns(group.pairs, "key", "url")
    ]
    if not tables or not plans:
        return
    with connect(root) as connection:
        connection.execute(f"CREATE TABLE aside AS SELECT unhex(key) AS uid, url FROM {files_sql(tables)}")
        asked = f"SELECT uid, url FROM {files_sql(plans)} ANTI JOIN aside USING (uid)"
        wanted = np.unique(np.concatenate([np.zeros(0, "<u8"), *(part["url"] for part in _hashed(connection, asked))]))
        if not len(wanted):
            return
        for part in _hashed(connection, "SELECT uid, url FROM aside WHERE url IS NOT NULL"):
            yield part[np.isin(part["url"], wanted)]


def _repeated(root: Path, plans: list[Path]) -> Iterator[Entries]:
    """Yield the planned rows whose URL, as written, stands in several shards."""
    if len(plans) < 2:
        return
    rows = files_sql(plans)
    query = f"""SELECT uid, url, file_index AS shard FROM {rows} WHERE url IN
        (SELECT url FROM {rows} GROUP BY url HAVING min(file_index) < max(file_index))"""
    with connect(root) as connection:
        yield from _hashed(connection, query)


def _hashed(connection: Any, query: str) -> Iterator[Entries]:
    """Yield the rows of a query for uid, url and, where they are in one, the number of their shard."""
    for batch in connection.cursor().execute(query).to_arrow_reader(100_000):
        entries = np.zeros(batch.num_rows, ENTRY)
        entries["url"] = [_hash(identity(url)) for url in batch["url"].to_pylist()]
        entries["shard"] = batch["shard"].to_numpy() if "shard" in batch.schema.names else ASIDE_ROW
        entries["uid"] = np.frombuffer(b"".join(batch["uid"].to_pylist()), "V16")
        yield entries


def answered(
    root: Path,
    made_by: Mapping[str, Terms],
    urls: Collection[str],
    again: Collection[str],
    spool: Spool,
    without: str,
) -> dict[str, Result]:
    """Return URL, by its identity, -> what was answered for it before, its picture spooled; by the index alone.

    `without`: the shard that asks. A row that is to be asked again answers for no other.
    """
    places = _places(root, urls)
    past = history(root, made_by, [uid for uid, _, shard in places if shard is None])
    for shard in sorted({shard for _, _, shard in places if shard not in (None, without)}):
        past |= _of_shard(root, shard, made_by, [uid for uid, _, name in places if name == shard])
    chosen: dict[str, bytes] = {}
    for uid, url, _ in places:
        known = past[uid].standing(again) if uid in past else None
        if known and serves_others(known.attempts[-1]) and (url not in chosen or past[chosen[url]].attempts[-1].reason):
            chosen[url], past[uid] = uid, known
    try:
        results = carried({uid: past[uid] for uid in chosen.values()}, again, spool)
    except (OSError, ShardError):  # a shard that is damaged: verify's business
        return {}
    return {url: results[uid] for url, uid in chosen.items() if uid in results and serves_others(results[uid].last)}


def serves_others(last: Attempt) -> bool:
    """Tell whether a row's attempt answers for other rows of its URL: not one that a list of hashes named, nor a
    picture of before whose digests are not known, for no such list could be held against it."""
    return last.reason != "removed" and (last.reason is not None or last.digests.pdq is not None)


def _places(root: Path, urls: Iterable[str]) -> list[tuple[bytes, str, str | None]]:
    """Return (uid, URL, its shard or None where it lies aside) of the rows that the index knows for these URLs."""
    try:
        shards = read_field(_path(root).with_suffix(".json"), "shards", list)
        entries = np.load(mapped(_path(root)), mmap_mode="r")
    except (OSError, FormatError):
        return []
    by_hash = {_hash(url): url for url in urls}
    wanted = np.array(sorted(by_hash), "<u8")
    low, high = (np.searchsorted(entries["url"], wanted, side) for side in ("left", "right"))
    found = []
    for first, last in zip(low.tolist(), high.tolist(), strict=True):
        for key, shard, uid in entries[first:last].tolist():
            found.append((bytes(uid), by_hash[key], None if shard == ASIDE_ROW else shards[shard]))
    return found


def _of_shard(root: Path, shard: str, made_by: Mapping[str, Terms], uids: list[bytes]) -> dict[bytes, Past]:
    """Return what a shard of the run that is done knows of these rows."""
    record = Journal(root, "fetch").get(shard)
    if record is None or not all(file.is_whole(root) for file in record.files):
        return {}
    ledger = root / record.files[-1].path
    marked = stamped([ledger])
    terms = made_by.get(marked[1]) if marked else None
    if terms is None:
        return {}
    try:
        table = read_table(ledger)
    except (OSError, FormatError):
        return {}
    return pasts(table.filter(pc.is_in(table["uid"], pa.array(uids, pa.binary(16)))), ledger, terms)


def _hash(url: str) -> int:
    return int.from_bytes(hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _path(root: Path) -> Path:
    return root / UNDER_WAY / "fetch" / "urls" / "index.npy"
