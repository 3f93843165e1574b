"""filter / select: read the input row group by row group, give every row a uid, drop what metadata alone can drop."""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.files import digest_of, write_table
from manifests.manifest import FileRecord, ShardRecord
from manifests.schema import COLUMNS, schema
from manifests.uid import UID_SQL, fraction_bound, uid_hash_sql
from manifests.weights import WeightsFile
from pipeline.hands import Hands
from pipeline.inputs import UNREADABLE, InputFile, claimed, open_input
from pipeline.rules import DETECTED, RuleSet, build_rules, fillable, first_failure, input_columns, own_filters
from pipeline.steps import Step, Unit

HEAD = ("uid", "source", "source_row", "url", "reason")
SCORES = ("similarity", "pwatermark", "punsafe", "aesthetic_v1", "aesthetic_v2")
CARRIED = ("text", "top_caption", "width", "height", *SCORES, *DETECTED)
SELECTED = schema(*HEAD, *CARRIED)
"""`ledger/select/*.parquet`: a row per input row; CARRIED is null where the row was dropped."""
URL_LIKE = r"^(?i:https?)://[^\s/?#]+|^(?i:[a-z][a-z0-9+.-]*):."
"""An http(s) URL with a host, or another scheme: which schemes may be fetched is the fetch step's business."""


@dataclass(frozen=True)
class Select(Step):
    """Units are runs of row groups of one file, of about `input.unit_rows` rows."""

    name: ClassVar[str] = "select"
    version: ClassVar[int] = 1

    def settings(self) -> dict[str, Any]:
        """Return mapping, sample and the rules that metadata can judge."""
        recipe = self.recipe
        return {
            "columns": input_columns(recipe),
            "sample": [recipe.input.sample, recipe.input.limit, recipe.input.seed],
            "rules": recipe.plain()["filter"]["rules"],
            **own_filters(recipe, recipe.filter.rules),
            "fillable": sorted(fillable(recipe)),
            "detect": detects(recipe_rules := build_rules(recipe), recipe_rules.columns),
        }

    def weights(self) -> tuple[WeightsFile, ...]:
        """Return the language detector's file where a rule needs it."""
        from filters.language import language_weights

        rules = build_rules(self.recipe)
        return (language_weights(),) if detects(rules, rules.columns) else ()

    def plan(self) -> list[Unit]:
        """Cut every readable file into runs of row groups."""
        units: list[Unit] = []
        files = claimed(self.root)
        bound = self._bound(sum(file.rows for file in files))
        for file in (file for file in files if not file.fault):
            for start, stop, first_row in _runs(file, self.recipe.input.unit_rows):
                reads = {"url": file.url, "name": file.name, "groups": [start, stop], "first_row": first_row, "bound": bound}
                content = digest_of([file.name, file.sha256, start, stop, bound])
                units.append(Unit(f"{len(units):05d}", reads, content))
        return units

    def _bound(self, rows: int) -> int | None:
        share = self.recipe.input.sample
        if self.recipe.input.limit is not None:
            share = min(share or 1.0, self.recipe.input.limit / max(rows, 1))
        return None if share is None else fraction_bound(share)

    def open(self) -> "SelectWorker":
        """Build the rules once."""
        return SelectWorker(self, build_rules(self.recipe), input_columns(self.recipe))


def detects(rules: RuleSet, columns: tuple[str, ...]) -> bool:
    """Tell whether a rule reads the language of the text."""
    return any(column in DETECTED for column in columns)


def _runs(file: InputFile, unit_rows: int) -> list[tuple[int, int, int]]:
    """Return (first group, group after the last, first row) of runs of whole row groups."""
    runs, start, rows, first_row = [], 0, 0, 0
    for group, count in enumerate(file.groups):
        rows += count
        if rows >= unit_rows or group == len(file.groups) - 1:
            runs.append((start, group + 1, first_row))
            start, first_row, rows = group + 1, first_row + rows, 0
    return runs


@dataclass(frozen=True)
class SelectWorker:
    """Reads a unit's row groups one at a time; a broken one becomes as many dropped rows as its footer promises."""

    step: Select
    rules: RuleSet
    mapping: dict[str, str]

    def run(self, unit: Unit, hands: Hands) -> ShardRecord:
        """Write `ledger/select/NAME.parquet`."""
        reads = unit.reads
        tables: list[pa.Table] = []
        with hands.holding(unit.name, ()), open_input(reads["url"]) as raw:
            file = pq.ParquetFile(raw)
            row = reads["first_row"]
            for group in range(*reads["groups"]):
                count = file.metadata.row_group(group).num_rows
                tables.append(self._group(file, group, row, unit))
                row += count
        table = pa.concat_tables(tables) if tables else SELECTED.empty_table()
        path = self.step.root / "ledger" / "select" / f"{unit.name}.parquet"
        write_table(path, table)
        reasons = {entry["values"]: entry["counts"] for entry in pc.value_counts(table["reason"].drop_null()).to_pylist()}
        kept = table["reason"].null_count
        return ShardRecord(unit.name, unit.key, (FileRecord.of(self.step.root, path),), table.num_rows, kept, reasons)

    def _group(self, file: pq.ParquetFile, group: int, first_row: int, unit: Unit) -> pa.Table:
        count = file.metadata.row_group(group).num_rows
        source = {
            "source": pa.array([unit.reads["name"]] * count, pa.string()),
            "source_row": pa.array(range(first_row, first_row + count), pa.int64()),
        }
        try:
            names = [theirs for theirs in self.mapping.values() if theirs in file.schema_arrow.names]
            read = file.read_row_group(group, columns=names)
            if read.num_rows != count:
                raise pa.ArrowInvalid(f"{read.num_rows} rows where the footer promises {count}")
            read.validate()
        except UNREADABLE:
            broken = pa.table({**source, "reason": pa.array(["broken_row_group"] * count, pa.string())})
            return conform(broken)
        return self._judge(pa.table({**source, **self._columns(read)}), unit.reads["bound"])

    def _columns(self, read: pa.Table) -> dict[str, pa.Array]:
        return {
            ours: coerce(read[theirs], COLUMNS[ours].type) if theirs in read.column_names else pa.nulls(read.num_rows, COLUMNS[ours].type)
            for ours, theirs in self.mapping.items()
        }

    def _judge(self, table: pa.Table, bound: int | None) -> pa.Table:
        table = with_uids(table, bound, self.step.recipe.input.seed)
        is_url = pc.fill_null(pc.match_substring_regex(table["url"], URL_LIKE), False)
        reason = pc.if_else(is_url, pa.scalar(None, pa.string()), "bad_url")
        if detects(self.rules, self.rules.columns):
            table = with_language(table, pc.is_null(reason))
        batch = _with_columns(conform(table), self.rules.columns).combine_chunks().to_batches()
        judged = first_failure(self.rules.everywhere, batch[0], fillable(self.step.recipe)) if batch else pa.nulls(0, pa.string())
        reason = pc.coalesce(reason, judged)
        return conform(_without_dropped(table, reason).append_column("reason", reason))


def _with_columns(table: pa.Table, columns: tuple[str, ...]) -> pa.Table:
    """Add the columns that rules read and only a later step fills, all null."""
    for name in set(columns) - set(table.column_names):
        table = table.append_column(COLUMNS[name], pa.nulls(table.num_rows, COLUMNS[name].type))
    return table


def _without_dropped(table: pa.Table, reason: pa.ChunkedArray) -> pa.Table:
    """Null the carried columns of dropped rows: the ledger needs who they were, not what they held."""
    kept = pc.is_null(reason)
    for name in set(CARRIED) & set(table.column_names):
        position = table.column_names.index(name)
        table = table.set_column(position, name, pc.if_else(kept, table[name], pa.scalar(None, table[name].type)))
    return table


def conform(table: pa.Table) -> pa.Table:
    """Return the table with exactly SELECTED's columns; those it lacks are null."""
    arrays = [table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type) for f in SELECTED]
    return pa.table(arrays, schema=SELECTED)


def coerce(column: pa.ChunkedArray, type_: pa.DataType) -> pa.Array:
    """Return a column in our type, whatever its drift: what cannot be said in it is null.

    Floats become whole pixels only where finite and in range; text that is not UTF-8 keeps its place with U+FFFD.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(type_):
        return _text(array)
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        array = _numbers(array)
    wide = array.cast(pa.float64(), safe=False)
    if pa.types.is_integer(type_):
        fits = pc.and_(pc.is_finite(wide), pc.less(pc.abs(wide), 2.0**31))
        return pc.if_else(fits, wide, pa.scalar(None, pa.float64())).cast(type_, safe=False)
    return pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.float64()), wide).cast(type_, safe=False)


def _numbers(array: pa.Array) -> pa.Array:
    """Return the numbers that texts spell; other kinds of values are no numbers."""
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_decimal(array.type)):
        return pa.nulls(len(array), pa.float64())
    return pa.array([_number(value) for value in array.to_pylist()], pa.float64())


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text(array: pa.Array) -> pa.Array:
    """Return texts as they are, plain values as they are written, and null for what is no text (lists, tables)."""
    if pa.types.is_nested(array.type):
        return pa.nulls(len(array), pa.string())
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_binary(array.type)):
        try:
            return array.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return pa.nulls(len(array), pa.string())
    try:
        text = array.cast(pa.binary()).cast(pa.string())
        text.validate(full=True)
        return text
    except pa.ArrowInvalid:
        raw = array.cast(pa.binary()).to_pylist()
        return pa.array([None if value is None else value.decode("utf-8", "replace") for value in raw], pa.string())


def with_uids(table: pa.Table, bound: int | None, seed: int) -> pa.Table:
    """Add the uid column; with a bound, keep only the rows whose uid_hash falls below it."""
    import duckdb

    with duckdb.connect() as connection:
        connection.register("rows", table)
        where = "" if bound is None else f"WHERE {uid_hash_sql('uid', seed)} < {bound}"
        query = f"SELECT * FROM (SELECT *, {UID_SQL} AS uid FROM rows) {where} ORDER BY source_row"
        found = connection.execute(query).to_arrow_table()
    return found.set_column(found.column_names.index("uid"), "uid", found["uid"].cast(pa.binary(16)))


def with_language(table: pa.Table, wanted: pa.ChunkedArray) -> pa.Table:
    """Add language and language_score of the text for the wanted rows; what the input says of a language stands."""
    from filters.language import detect

    given = [table[name] if name in table.column_names else pa.nulls(table.num_rows, COLUMNS[name].type) for name in DETECTED]
    unknown = pc.and_(wanted, pc.is_null(given[0])).to_pylist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes, scores = detect([text if want else None for text, want in zip(table["text"].to_pylist(), unknown, strict=True)])
    found = pa.array(codes, pa.string()), pa.array(scores, pa.float32(), from_pandas=True)
    table = table.drop_columns([name for name in DETECTED if name in table.column_names])
    for name, mine, theirs in zip(DETECTED, given, found, strict=True):
        table = table.append_column(name, pc.coalesce(mine, theirs))
    return table
