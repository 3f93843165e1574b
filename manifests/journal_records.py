"""Read the records of a run's shards, JSONs and tables, and say which of them is damaged."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from manifests.files import FormatError, finished
from manifests.findings import Claim, Records, reason_of
from manifests.journal import COPY, STEP, Journal, ShardRecord, is_note, parse_record
from manifests.layout import may_write
from manifests.record_table import record_bytes, stored_records
from manifests.regular_files import read_plain


def read_journals(records: Records) -> None:
    """Read the tables of steps that have ended, and the JSONs that are newer."""
    _tables(records)
    for path in finished(records.root / "manifests" / "journal", "*/*.json"):
        step, shard = path.parent.name, path.stem
        if path.name == STEP:
            records.shaped(path, step, partial(is_note, step=step))
            continue
        entry = records.json(path, step, shard)
        if entry is None:
            continue
        try:
            record = parse_record(path, entry)
        except FormatError as error:
            records.find(path, "damaged", reason_of(error, path), step, shard)
            continue
        if whose := _whose(step, shard, record):
            records.find(path, "damaged", f"{whose}: not that of {step} {shard}", step, shard)
            continue
        _take(records, step, record)


def _whose(step: str, shard: str, record: ShardRecord) -> str:
    """Say what a record is that is not this shard's, nothing of one that is."""
    others = [file.path for file in record.files if not may_write(step, shard, file.path)]
    if record.shard == shard and not others:
        return ""
    return f"names {others[0]}" if others else f"the record of shard {record.shard}"


def _take(records: Records, step: str, record: ShardRecord) -> None:
    records.journal.setdefault(step, {})[record.shard] = record
    for file in record.files:
        records.claims[file.path] = Claim(file, "its journal", step, record.shard)


def _tables(records: Records) -> None:
    """Read the tables of the steps that have ended: the first of the two that is whole counts, but for shards that have
    a JSON."""
    there = finished(records.root / "manifests" / "journal", "*.parquet")
    for step in sorted({path.name.removesuffix(COPY).removesuffix(".parquet") for path in there}):
        journal, found = Journal(records.root, step), dict[Path, list[ShardRecord]]()
        for path in journal.tables:
            records.known.add(path.relative_to(records.root).as_posix())
            try:
                found[path] = list(stored_records(path, step).all.values())
            except FileNotFoundError:
                records.find(path, "missing", "not there, though the other of the two is", step)
            except (OSError, FormatError) as error:
                records.find(path, "damaged", reason_of(error, path), step)
        if len(found) == 2:
            _same_tables(records, step, found)
        written = journal.written()
        for record in next(iter(found.values()), ()):
            if record.shard not in written and (whose := _whose(step, record.shard, record)):
                records.find(journal.tables[0], "damaged", f"{whose}: not that of {step} {record.shard}", step)
            elif record.shard not in written:
                _take(records, step, record)


def _same_tables(records: Records, step: str, found: Mapping[Path, list[ShardRecord]]) -> None:
    """Find what differs between a table and its copy, both of which can be read."""
    (table, own), (copy, others) = found.items()
    data = {path: read_plain(path) for path in (table, copy)}
    if data[table] == data[copy]:
        return
    if own != others:
        records.find(copy, "unfinished", f"older than {table.name}: the next run of its step writes it again", step)
        return
    written = record_bytes(step, own)  # by other versions of Arrow it may be neither
    for path in [path for path in (table, copy) if data[path] != written]:
        says = "its content can be read, but its bytes are not those that were written"
        records.find(path, "damaged", says, step)
