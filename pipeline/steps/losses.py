"""Say what of the input select could not read: files, row groups, and files of which no row bears a URL."""

from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.journal import ShardRecord, records_of
from manifests.query import FILES, batches, connect, files_sql
from pipeline.execution.step import Step
from pipeline.inputs.files import InputFile
from pipeline.inputs.input_list import registered_files

UNREAD = ("bad_url", "broken_line")
"""Reasons of rows without a URL: a file that has no others is lost, though each of its rows is counted."""
SAMPLED = 10
"""Rows that a sample must have of a file before it is lost by them."""


def lost_input(step: Step) -> list[dict[str, Any]]:
    """Return the manifest's `losses`: whole files, outside rows_in, then row groups and files without a URL, whose rows
    are counted as dropped. Each file stands in it once."""
    files = registered_files(step.root)
    whole = [
        {"kind": "file", "name": file.name, "fault": file.fault, "bytes": file.bytes, "footer_sha256": file.footer}
        for file in files
        if file.fault
    ]
    return [*whole, *_broken_groups(step, files), *_without_urls(step)]


def _broken_groups(step: Step, files: list[InputFile]) -> list[dict[str, Any]]:
    lost: list[dict[str, Any]] = []
    broken = _broken_starts(step.root, step.name, files) if files else set()
    for file in files:
        first = 0
        for group, count in enumerate(file.groups):
            if (file.name, first) in broken and count:
                lost.append({"kind": "row_group", "name": file.name, "row_group": group, "rows": count})
            first += count
    return lost


def _broken_starts(root: Path, step: str, files: list[InputFile]) -> set[tuple[str, int]]:
    """Return (source, source_row) of the first row of each broken row group."""
    records = [record for record in records_of(root, step) if record.dropped.get("broken_row_group")]
    if not records:
        return set()
    starts = [(file.name, first) for file in files for first in accumulate(file.groups, initial=0)]
    table = pa.table({"source": [name for name, _ in starts], "source_row": [first for _, first in starts]})
    found: set[tuple[str, int]] = set()
    with connect(root) as connection:
        connection.register("starts", table)
        for some in batches([root / record.files[0].path for record in records], FILES):
            query = f"""
                SELECT DISTINCT source, source_row FROM {files_sql(some)} SEMI JOIN starts USING (source, source_row)
                WHERE reason = 'broken_row_group'"""
            found.update(connection.execute(query).fetchall())
    return found


def _without_urls(step: Step) -> list[dict[str, Any]]:
    """Return the files of which no row can be read: each is a broken line or bears no URL. A few rows of a sample do
    not say so of a file."""
    rows, unread, least = Counter[str](), Counter[str](), 1
    records = {record.shard: record for record in records_of(step.root, step.name)}
    for unit in step.plan() if any(map(_is_unread, records.values())) else ():
        least = 1 if unit.reads["bound"] is None else SAMPLED
        if record := records.get(unit.name):
            rows[unit.reads["name"]] += record.rows_in
            unread[unit.reads["name"]] += _unread_rows(record)
    return [
        {"kind": "urls", "name": name, "fault": "no URL can be read in any of its rows", "rows": count}
        for name, count in rows.items()
        if count >= least and count == unread[name]
    ]


def _is_unread(record: ShardRecord) -> bool:
    return 0 < record.rows_in == _unread_rows(record)


def _unread_rows(record: ShardRecord) -> int:
    return sum(record.dropped.get(reason, 0) for reason in UNREAD)
