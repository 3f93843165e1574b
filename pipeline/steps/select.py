"""filter / select: read the input row group by row group, give every row a uid, drop what metadata alone can drop."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.exclude import OF_ROWS, Exclusions
from filters.language import with_language
from filters.tombstones import in_uids, lists_of, named_rows
from filters.verdicts import RuleSet, first_failure, names_of, reasons_of
from manifests.files import digest_of, read_table, writing_table
from manifests.journal import FileRecord, ShardRecord
from manifests.reasons import WITHOUT_ROW
from manifests.schema import CARRIED, COLUMNS, DETECTED, HELD
from manifests.tables import ENCODING, SELECTED
from manifests.tombstones import Tombstones, read_tombstones
from manifests.uid import Uids, fraction_bound
from manifests.weights import WeightsFile
from pipeline.execution.in_flight import InFlight
from pipeline.execution.redaction import RemovedRows, holds, measured_again, need_whole
from pipeline.execution.step import Step, Unit
from pipeline.inputs.beside import rows_beside
from pipeline.inputs.coerce import coerce
from pipeline.inputs.files import InputFile
from pipeline.inputs.find import known_digests
from pipeline.inputs.input_list import registered_files, reopen
from pipeline.inputs.jsonl import FAULT, FAULT_COLUMN, table_of
from pipeline.inputs.parquet import BrokenGroup, RowGroups
from pipeline.recipes.datasets import DATASETS
from pipeline.recipes.lists import exclusions_key, row_exclusions
from pipeline.recipes.rules import build_rules, fillable, input_columns, own_filters
from pipeline.recipes.schema import Recipe
from pipeline.steps.losses import lost_input

URL_LIKE = r"^[\x00-\x20]*[A-Za-z][A-Za-z0-9+.\t\n\r-]*:(?s:.)"
"""Something behind a scheme, as browsers read it (blanks before, tabs and line ends within): which schemes may be
fetched, and whether a host is in it, is the fetch step's business."""
BATCH_ROWS = 65_536
"""Rows in hand at a time; nothing in the ledger depends on it."""
HELD_ROWS = 1 << 18
"""Row groups up to this size are judged whole before they are written; larger ones are streamed, the unit begun anew
should one break."""
Columns = dict[str, pa.Array]
"""Our column -> its values, all of the same length."""


@dataclass(frozen=True)
class Select(Step):
    """Units are runs of row groups of one file, of about `input.unit_rows` rows."""

    name: ClassVar[str] = "select"
    version: ClassVar[int] = 3

    def settings(self) -> dict[str, Any]:
        """Return mapping, sample and the rules that metadata can judge."""
        recipe = self.recipe
        named = exclusions_key(recipe, *OF_ROWS)
        return {
            **({"exclude": named} if named else {}),
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
        files = registered_files(self.root)
        bound = self._bound(sum(file.rows for file in files))
        for file in (file for file in files if not file.fault):
            for start, stop, first_row in _runs(file, self.recipe.input.unit_rows):
                reads = {
                    "url": file.url,
                    "name": file.name,
                    "groups": [start, stop],
                    "first_row": first_row,
                    "bound": bound,
                }
                content = digest_of([file.name, file.footer, start, stop, bound])
                units.append(Unit(f"{len(units):05d}", reads, content))
        for name, file in self.with_tars().items():
            if not file.groups:  # no rows, but a tar: behind all others, whose numbers stay
                reads = {"url": file.url, "name": name, "groups": [0, 0], "first_row": 0, "bound": bound}
                units.append(Unit(f"{len(units):05d}", reads, digest_of([name, file.footer, 0, 0, bound])))
        return units

    def with_tars(self) -> dict[str, InputFile]:
        """Return the tables that have a tar beside them, by name."""
        files = registered_files(self.root) if DATASETS[self.recipe.input.dataset].kind == "tar" else []
        return {file.name: file for file in files if not (file.fault or file.made) and file.pictures.endswith(".tar")}

    def _bound(self, rows: int) -> int | None:
        share = self.recipe.input.sample
        if self.recipe.input.limit is not None:
            share = min(share or 1.0, self.recipe.input.limit / max(rows, 1))
        return None if share is None or share >= 1 else fraction_bound(share)

    def open(self) -> "SelectWorker":
        """Build the rules and read the exclusion lists once; LAION's hash is read where a list needs it."""
        named = row_exclusions(self.recipe)
        hashes = {"hash": "hash"} if named and "hash" in named.by_kind else {}
        local = DATASETS[self.recipe.input.dataset].local
        has_faults = local or bool(known_digests(self.root))  # tables were made of the input
        mapping = {**hashes, **input_columns(self.recipe), **({FAULT: FAULT_COLUMN} if has_faults else {})}
        gone = read_tombstones(self.root)
        return SelectWorker(self, build_rules(self.recipe), mapping, local, exclusions=named, tombstones=gone or None)

    def losses(self) -> list[dict[str, Any]]:
        """Return what could not be read, as `lost_input` says it."""
        return lost_input(self)

    def redact(self, record: ShardRecord, removed: RemovedRows) -> ShardRecord:
        """Turn rows of the ledger into dropped ones that say nothing but where they stood."""
        path = self.root / record.files[0].path
        if not holds(path, removed):
            return record
        need_whole(self.root, record.files)
        table = read_table(path)
        hit = removed.rows(table)
        columns = _nulled({name: table[name] for name in table.schema.names}, pc.invert(hit), {"uid", "url", *CARRIED})
        columns["reason"] = pc.if_else(hit, "removed", columns["reason"])
        with writing_table(path, table.schema, **ENCODING) as writer:
            writer.write(pa.table(columns, schema=table.schema.remove_metadata()))
        removed.counts["ledger/select/*.parquet"] += pc.sum(hit).as_py()
        reasons = Counter(columns["reason"].drop_null().to_pylist())
        kept, dropped = record.rows_in - reasons.total(), dict(sorted(reasons.items()))
        return measured_again(self.root, replace(record, rows_out=kept, dropped=dropped), [path])


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
    """Streams a unit's row groups; a broken one becomes as many dropped rows as its footer promises."""

    step: Select
    rules: RuleSet
    mapping: dict[str, str]
    local: bool = False
    batch_rows: int = BATCH_ROWS
    exclusions: Exclusions | None = None
    tombstones: Tombstones | None = None
    by_list: dict[int, Counter[str]] = field(default_factory=dict)
    """First row of a batch -> list of hashes -> removed rows that it named elsewhere: no tombstone has their place."""

    @cached_property
    def uids(self) -> Uids:
        """Return the hasher of this process."""
        return Uids(self.step.recipe.input.seed, self.step.recipe.output.memory_limit)

    @cached_property
    def tars(self) -> dict[str, str]:
        """Return table's name -> the tar beside it."""
        return {name: file.pictures for name, file in self.step.with_tars().items()}

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `ledger/select/NAME.parquet`."""
        path = self.step.root / "ledger" / "select" / f"{unit.name}.parquet"
        broken: set[int] = set()
        with in_flight.working_on(unit.name, ()), reopen(unit.reads["url"], unit.reads["name"]) as file:
            while True:
                try:
                    return self._write(unit, path, file, broken)
                except BrokenGroup as fault:  # a large one, found out after some of its rows were written
                    broken.add(fault.group)

    def _write(self, unit: Unit, path: Path, file: RowGroups, broken: set[int]) -> ShardRecord:
        rows, reasons = 0, Counter[str]()
        self.by_list.clear()
        with writing_table(path, SELECTED, **ENCODING) as writer:
            for table in self._tables(unit, file, broken):
                writer.write(table)
                rows += table.num_rows
                for entry in pc.value_counts(table["reason"].drop_null()):
                    reasons[entry["values"].as_py()] += entry["counts"].as_py()
        files = (FileRecord.of(self.step.root, path),)
        return ShardRecord(
            unit.name,
            unit.key,
            files,
            rows,
            rows - reasons.total(),
            dict(sorted(reasons.items())),
            self._read(unit, file),
        )

    def _read(self, unit: Unit, file: RowGroups) -> dict[str, Any]:
        names, groups = self._names(file), unit.reads["groups"]
        sha256 = file.digest(range(*groups), names)
        read = {"name": unit.reads["name"], "groups": groups, "columns": names, "sha256": sha256} if sha256 else {}
        listed = sum(self.by_list.values(), Counter[str]())
        return {**read, **({"removed_by_list": dict(sorted(listed.items()))} if listed else {})}

    def _names(self, file: RowGroups) -> list[str]:
        return [theirs for theirs in dict.fromkeys(self.mapping.values()) if theirs in file.names]

    def _tables(self, unit: Unit, file: RowGroups, broken: set[int]) -> Iterator[pa.Table]:
        """Yield the unit's rows, evaluated, in order. Raises BrokenGroup for a large one that should be in `broken`."""
        first_row = unit.reads["first_row"]
        for group in range(*unit.reads["groups"]):
            count = file.rows[group]
            if group in broken:
                yield self._lost(unit, first_row, count)
            elif count > HELD_ROWS:
                yield from self.evaluated(unit, file, group, first_row)
            else:
                try:
                    held = list(self.evaluated(unit, file, group, first_row))
                except BrokenGroup:
                    held = [self._lost(unit, first_row, count)]
                yield from held
            first_row += count
        if unit.reads["groups"][1] == len(file.rows) and unit.reads["name"] in self.tars:
            yield from self._beside(unit, file, first_row)

    def _beside(self, unit: Unit, file: RowGroups, first_row: int) -> Iterator[pa.Table]:
        """Yield the samples of the tar beside a table that no row of it names, behind the table's last row."""
        name = f"{unit.reads['name'].removesuffix('.parquet')}.tar"
        mapping = {ours: theirs for ours, theirs in self.mapping.items() if ours != FAULT}
        found = table_of(rows_beside(self.tars[unit.reads["name"]], name, file, mapping), mapping)
        for batch in found.to_batches(self.batch_rows):
            columns = {**_place(unit, first_row, batch.num_rows), **self._columns(batch)}
            yield self._evaluate(columns, unit.reads["bound"])
            first_row += batch.num_rows

    def evaluated(self, unit: Unit, file: RowGroups, group: int, first_row: int) -> Iterator[pa.Table]:
        """Yield a row group's rows, batch by batch, with their fates by the rules of select."""
        for batch in file.batches(group, self._names(file), self.batch_rows):
            columns = {**_place(unit, first_row, batch.num_rows), **self._columns(batch)}
            yield self._evaluate(columns, unit.reads["bound"])
            first_row += batch.num_rows

    def _lost(self, unit: Unit, first_row: int, count: int) -> pa.Table:
        for row in [row for row in self.by_list if first_row <= row < first_row + count]:
            del self.by_list[row]
        return conform({**_place(unit, first_row, count), "reason": pa.repeat("broken_row_group", count)})

    def _columns(self, batch: pa.RecordBatch) -> Columns:
        names = batch.schema.names
        return {
            ours: coerce(batch[theirs], COLUMNS[ours].type) for ours, theirs in self.mapping.items() if theirs in names
        }

    def _evaluate(self, columns: Columns, bound: int | None) -> pa.Table:
        """Return the ledger's rows of one batch: uid, the first reason that hits, and what survivors carry."""
        columns = self._with_uids(columns, bound)
        fine = pc.fill_null(pc.not_equal(columns["url"], ""), False) if self.local else looks_like_url(columns["url"])
        reason = pc.if_else(fine, pa.scalar(None, pa.string()), "bad_url")
        if FAULT in columns:
            reason = pc.coalesce(columns[FAULT], reason)
            columns["uid"] = pc.if_else(
                pc.is_in(reason, pa.array(WITHOUT_ROW)), pa.scalar(None, columns["uid"].type), columns["uid"]
            )
        if self.exclusions:
            reason = pc.if_else(pc.fill_null(self.exclusions.hits(columns), False), "removed", reason)
        if self.tombstones:
            gone = named_rows(self.tombstones, columns)
            others = pc.and_(gone, pc.fill_null(pc.not_equal(reason, "removed"), True))
            if pc.any(others).as_py():
                self.by_list[columns["source_row"][0].as_py()] = lists_of(self.tombstones, columns, others)
            reason, columns = pc.if_else(gone, "removed", reason), without_removed(columns, gone, self.tombstones)
        if detects(self.rules, self.rules.columns):
            columns = with_language(columns, pc.is_null(reason))
        batch = _batch(columns, self.rules.columns)
        names = reasons_of(self.rules)
        code = first_failure(self.rules.everywhere, batch, names, fillable(self.step.recipe))
        reason = pc.coalesce(reason, names_of(code, names))
        return conform({**self._what_stays(columns, reason), "reason": reason})

    def _what_stays(self, columns: Columns, reason: pa.Array) -> Columns:
        """Null the texts of dropped rows, and all of removed ones: the ledger needs who they were, not what they
        said."""
        kept = pc.is_null(reason)
        columns = _nulled(columns, kept, set(CARRIED) - set(HELD))
        if self.exclusions or self.tombstones:
            columns = _nulled(columns, pc.or_kleene(kept, pc.not_equal(reason, "removed")), set(HELD))
        return columns

    def _with_uids(self, columns: Columns, bound: int | None) -> Columns:
        """Add the uid; with a bound, keep only the rows whose uid_hash falls below it."""
        uid, chosen = self.uids.of(columns["url"], columns.get("text"), bound)
        columns = {**columns, "uid": uid}
        return columns if chosen is None else {name: values.filter(chosen) for name, values in columns.items()}


def row_again(recipe: Recipe, source: str, source_row: int) -> dict[str, Any]:
    """Return what one input row holds, as the rules see it: our column -> value, the language too where a rule reads
    it.

    Raises LookupError for a file or row that is not of this run's input, OSError or FormatError where it cannot be
    read now.
    """
    step = Select(recipe, recipe.root)
    worker = step.open()
    file = next((file for file in registered_files(recipe.root) if file.name == source), None)
    if file is None or file.fault or not 0 <= source_row < file.rows:
        raise LookupError(f"{source} row {source_row} is not in the input that this run knows")
    with RowGroups(file.url) as groups:
        group, first = 0, 0
        while first + groups.rows[group] <= source_row:
            group, first = group + 1, first + groups.rows[group]
        for batch in groups.batches(group, worker._names(groups), BATCH_ROWS):
            if source_row < first + batch.num_rows:
                return _as_rules_see(worker, batch.slice(source_row - first, 1))
            first += batch.num_rows
    raise LookupError(f"{source} has no row {source_row} now")


def _as_rules_see(worker: SelectWorker, row: pa.RecordBatch) -> dict[str, Any]:
    columns = worker._columns(row)
    if detects(worker.rules, worker.rules.columns):
        columns = with_language(columns, pa.array([True]))
    return {name: values[0].as_py() for name, values in columns.items() if name in COLUMNS}


def _place(unit: Unit, first_row: int, count: int) -> Columns:
    """Return where rows came from."""
    return {
        "source": pa.repeat(unit.reads["name"], count),
        "source_row": pa.array(np.arange(first_row, first_row + count, dtype=np.int64)),
    }


def looks_like_url(url: pa.Array) -> pa.BooleanArray:
    """Tell of each value whether it is URL_LIKE. The expression, ten times as slow, sees few."""
    common = pc.or_(pc.starts_with(url, "https://"), pc.starts_with(url, "http://"))
    common = pc.fill_null(common, False)
    if pc.all(common).as_py():
        return common
    rest = pc.match_substring_regex(url.filter(pc.invert(common)), URL_LIKE)
    return pc.replace_with_mask(common, pc.invert(common), pc.fill_null(rest, False))


def _batch(columns: Columns, names: tuple[str, ...]) -> pa.RecordBatch:
    """Return the columns that rules read; those that only a later step fills are null."""
    names = tuple(dict.fromkeys(("url", *names)))
    nulls = {name: pa.nulls(len(columns["url"]), COLUMNS[name].type) for name in names if name not in columns}
    return pa.RecordBatch.from_arrays(
        [nulls[name] if name in nulls else columns[name] for name in names], names=list(names)
    )


def _nulled(columns: Columns, kept: pa.BooleanArray, names: set[str]) -> Columns:
    """Null these columns of the rows that are not kept."""
    return {
        name: pc.if_else(kept, values, pa.scalar(None, values.type)) if name in names else values
        for name, values in columns.items()
    }


def without_removed(columns: Columns, gone: pa.BooleanArray, tombstones: Tombstones) -> Columns:
    """Null what the ledger must not say of removed rows: URL, and the uid that stands in the tombstones."""
    known = pc.and_(gone, in_uids(tombstones, columns["uid"]))
    hidden = {"url": gone, "uid": known}
    return {
        **columns,
        **{name: pc.if_else(mask, pa.scalar(None, columns[name].type), columns[name]) for name, mask in hidden.items()},
    }


def conform(columns: Columns) -> pa.Table:
    """Return a table with exactly SELECTED's columns; those that are not given are null."""
    rows = len(columns["reason"])
    return pa.table(
        [columns[f.name] if f.name in columns else pa.nulls(rows, f.type) for f in SELECTED], schema=SELECTED
    )
