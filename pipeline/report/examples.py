"""Choose the rows that a report shows, by a hash of their uid, and read their pictures out of the first shards."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from manifests.files import FormatError, finished, read_parquet, rows_of
from manifests.query import batches, connect, files_sql
from manifests.shards import ShardError
from manifests.stored_pictures import may_hold, stored_pictures
from pipeline.report.pictures import shrunk

ROWS = 50_000
"""Pictures and examples come from the first files with about this many rows, so that a report of a huge run stays small
and quick."""
FILES = 64
"""Files that are looked at at once: DuckDB holds some 0.2 MB of each."""
PER_REASON = 5
PER_TIER = 20
GROUPS = 8
PER_GROUP = 4
TILES = 40
NO_SCORES = frozenset({"width_origin", "height_origin", "language_origin", "language_score_origin"})
SIDE = 200
"""Long side of a shown picture, in pixels."""
RECAPTION = 160
"""Letters of a written caption."""
UNSAFE = {"punsafe": 0.5, "opennsfw": 0.5}
"""Pictures that score above these, or that rule `nsfw` dropped, are not shown: a report gets passed around."""


@dataclass(frozen=True)
class Score:
    """One number of a row. `origin`: what computed it, or `input` where it came with the row."""

    name: str
    value: float
    origin: str = ""


@dataclass(frozen=True)
class Example:
    """A row that the report shows; `jpeg` is empty where its picture never came or is not to be shown."""

    uid: str
    text: str
    url: str
    fate: str
    reason: str = ""
    scores: tuple[Score, ...] = ()
    jpeg: bytes = b""
    recaption: str = ""


@dataclass(frozen=True)
class Examples:
    """Rows to show: `kept` by tier, `dropped` by reason, `groups` of near duplicates, the survivor first."""

    kept: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    dropped: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    groups: tuple[tuple[Example, ...], ...] = ()

    def mosaic(self) -> list[Example]:
        """Return at most TILES kept rows with a picture, of all tiers in turn, each once."""
        places = list(self.kept.values())
        longest = max(map(len, places), default=0)
        turns = [rows[turn] for turn in range(longest) for rows in places if turn < len(rows)]
        unique = {row.uid: row for row in turns if row.jpeg}
        return list(unique.values())[:TILES]

    def with_texts(self, texts: Mapping[str, str]) -> "Examples":
        """Return the same rows, dropped ones without a text with that of `texts` (uid -> text).

        The ledger keeps no text of dropped rows: a row whose picture never came has one nowhere else.
        """
        dropped = {
            reason: tuple(replace(row, text=row.text or texts.get(row.uid, "")) for row in rows)
            for reason, rows in self.dropped.items()
        }
        return replace(self, dropped=dropped)


def read_examples(root: Path, ledgers: Sequence[Path], tiers: Sequence[str], recaptioned: str) -> Examples:
    """Return rows of each fate with their pictures.

    `ledgers`: the files of `ledger/final`. `tiers` come first, in their order. `recaptioned`: the words before a
    caption that the caption stage wrote.
    """
    shards = [path.with_suffix(".tar") for path in _first(sorted((root / "pairs").glob("*.parquet")))]
    with connect(root) as connection:
        uids = _uids(shards)
        connection.register("here", _uid_table(uids))
        _view(connection, "final", _holding(connection, ledgers, len(uids)))
        _view(connection, "first_final", _first(ledgers))
        kept = _kept(connection)
        order = [*tiers, *sorted(set(kept) - set(tiers))]
        examples = Examples(
            {tier: kept[tier] for tier in order if tier in kept},
            _dropped(connection),
            _groups(connection, sorted((root / "dedup").glob("*.parquet"))),
        )
        shown = sorted({row.uid for rows in kept.values() for row in rows})
        captions = _recaptions(connection, finished(root / "captions", "*.parquet"), shown)
    return _filled(examples, shards, {uid: f"{recaptioned}: {text[:RECAPTION]}" for uid, text in captions.items()})


def _first(paths: Sequence[Path]) -> list[Path]:
    """Return the first of these Parquet files that hold about ROWS rows, at least one."""
    chosen: list[Path] = []
    rows = 0
    for path in paths:
        if rows >= ROWS:
            break
        chosen.append(path)
        rows += rows_of(path)
    return chosen


def _holding(connection: duckdb.DuckDBPyConnection, paths: Sequence[Path], count: int) -> list[Path]:
    """Return files of the final ledger, in order, that hold the rows `here`, `count` of them: in most runs the first
    few, since shards of pairs are filled in that order. FILES are looked at at once."""
    held: list[Path] = []
    found = 0
    for start in range(0, len(paths), FILES):
        some = paths[start : start + FILES]
        _view(connection, "looked_at", some)
        query = """
            SELECT count(*) FROM looked_at
            WHERE uid IN (SELECT uid FROM here) AND reason IS DISTINCT FROM 'exact_duplicate'"""
        here = int((connection.execute(query).fetchone() or (0,))[0])
        found += here
        held += some if here else ()
        if found >= count:
            break
    return held or list(paths[:1])


def _view(connection: duckdb.DuckDBPyConnection, name: str, paths: Sequence[Path]) -> None:
    connection.read_parquet([str(path) for path in paths]).create_view(name, replace=True)


def _uid_table(uids: Sequence[bytes]) -> pa.Table:
    return pa.table({"uid": pa.array(uids, pa.binary(16))})


def _uids(shards: Sequence[Path]) -> list[bytes]:
    """Return the uids of the pictures in these shards, from the tables beside them."""
    uids: list[bytes] = []
    for shard in shards:
        with contextlib.suppress(OSError, FormatError):
            keys = read_parquet(shard.with_suffix(".parquet"), ["key"])["key"].to_pylist()
            uids += [bytes.fromhex(key) for key in keys if key and len(key) == 32]
    return uids


def _by(connection: duckdb.DuckDBPyConnection, column: str, query: str, *values: int) -> dict[Any, tuple[Example, ...]]:
    """Return the rows of a query by one of its columns, in the query's order."""
    rows: dict[Any, list[Example]] = defaultdict(list)
    for row in connection.execute(query, list(values)).to_arrow_table().to_pylist():
        rows[row[column]].append(_example(row))
    return {value: tuple(members) for value, members in rows.items()}


def _kept(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[Example, ...]]:
    """Return a few rows of each tier whose picture is in the shards that are read."""
    query = """
        SELECT * FROM (SELECT *, unnest(tiers) AS tier FROM final WHERE fate = 'kept' AND uid IN (SELECT uid FROM here))
        QUALIFY row_number() OVER (PARTITION BY tier ORDER BY md5(hex(uid))) <= ?
        ORDER BY tier, md5(hex(uid))"""
    return _by(connection, "tier", query, PER_TIER)


def _dropped(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[Example, ...]]:
    """Return a few rows of each reason, those with a picture first."""
    query = """
        SELECT * FROM first_final WHERE fate = 'dropped'
        QUALIFY row_number() OVER (
            PARTITION BY reason ORDER BY uid NOT IN (SELECT uid FROM here), md5(hex(uid)), source_row) <= ?
        ORDER BY reason, uid NOT IN (SELECT uid FROM here), md5(hex(uid)), source_row"""
    return _by(connection, "reason", query, PER_REASON)


def _groups(connection: duckdb.DuckDBPyConnection, clusters: Sequence[Path]) -> tuple[tuple[Example, ...], ...]:
    """Return a few clusters of near duplicates, the survivor first."""
    if not clusters:
        return ()
    connection.execute("CREATE TEMP TABLE clusters (uid BLOB, cluster BLOB)")
    for some in batches(clusters, FILES):
        rows = f"SELECT uid, cluster FROM {files_sql(some)} WHERE uid IN (SELECT uid FROM here)"
        connection.execute(f"INSERT INTO clusters {rows}")
    query = """
        WITH members AS (
            SELECT clusters.cluster AS family, final.* FROM clusters JOIN final USING (uid)
            WHERE uid IN (SELECT uid FROM here) AND reason IS DISTINCT FROM 'exact_duplicate'
            QUALIFY count(*) OVER (PARTITION BY family) > 1
            AND bool_or(reason = 'near_duplicate') OVER (PARTITION BY family)
        ), chosen AS (
            SELECT family FROM members GROUP BY family ORDER BY count(*) > 2 DESC, md5(family::VARCHAR) LIMIT ?
        )
        SELECT * FROM members WHERE family IN (SELECT family FROM chosen) ORDER BY family, fate DESC, md5(hex(uid))"""
    return tuple(rows[:PER_GROUP] for rows in _by(connection, "family", query, GROUPS).values())


def _recaptions(connection: duckdb.DuckDBPyConnection, captions: Sequence[Path], uids: Sequence[str]) -> dict[str, str]:
    """Return uid -> caption that the caption stage wrote; none where its files cannot be read."""
    connection.register("shown", _uid_table([bytes.fromhex(uid) for uid in uids]))
    said: dict[str, str] = {}
    with contextlib.suppress(duckdb.Error):
        for some in batches(captions, FILES):
            rows = f"""
                SELECT DISTINCT ON (uid) uid, caption FROM {files_sql(some)}
                WHERE caption IS NOT NULL AND uid IN (SELECT uid FROM shown)"""
            for uid, caption in connection.execute(rows).fetchall():
                said.setdefault(bytes(uid).hex(), str(caption))
    return said


def _example(row: Mapping[str, Any]) -> Example:
    """Return a row of the final ledger; its scores are the numbers that have an origin."""
    columns = [name.removesuffix("_origin") for name in row if name.endswith("_origin") and name not in NO_SCORES]
    scores = tuple(
        Score(name, float(row[name]), str(row[f"{name}_origin"] or ""))
        for name in columns
        if isinstance(row.get(name), float)
    )
    uid = bytes(row["uid"]).hex() if row["uid"] else ""
    return Example(uid, row.get("text") or "", row["url"] or "", row["fate"], row["reason"] or "", scores)


def _filled(examples: Examples, shards: Sequence[Path], recaptions: Mapping[str, str]) -> Examples:
    """Give every chosen row its picture and, where the ledger has no text, the text of its pair."""
    places = [*examples.kept.values(), *examples.dropped.values(), *examples.groups]
    pairs = _pairs(shards, {row.uid for rows in places for row in rows})

    def filled(rows: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(_with_pair(row, *pairs.get(row.uid, (b"", "")), recaptions.get(row.uid, "")) for row in rows)

    return Examples(
        {tier: filled(rows) for tier, rows in examples.kept.items()},
        {reason: filled(rows) for reason, rows in examples.dropped.items()},
        tuple(filled(rows) for rows in examples.groups),
    )


def _with_pair(row: Example, jpeg: bytes, text: str, recaption: str) -> Example:
    return replace(row, jpeg=b"" if _is_unsafe(row) else jpeg, text=row.text or text, recaption=recaption)


def _is_unsafe(row: Example) -> bool:
    return row.reason == "nsfw" or any(score.value > UNSAFE.get(score.name, score.value) for score in row.scores)


def _pairs(shards: Sequence[Path], uids: set[str]) -> dict[str, tuple[bytes, str]]:
    """Return uid -> (small JPEG, text) of these pairs, as far as the shards hold them."""
    pairs: dict[str, tuple[bytes, str]] = {}
    for uid, sample in _samples(shards, uids):
        if "jpg" in sample:
            pairs[uid] = (shrunk(sample["jpg"], SIDE), sample.get("txt", b"").decode("utf-8", "replace"))
        if len(pairs) == len(uids):
            break
    return pairs


def _samples(shards: Sequence[Path], uids: set[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    for shard in shards:
        with contextlib.suppress(ShardError, OSError):
            yield from stored_pictures(shard, uids, ("jpg", "txt")) if may_hold(shard, uids) else ()
