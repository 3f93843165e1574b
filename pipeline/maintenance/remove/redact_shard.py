"""Take rows out of what one unit of a step has left, and say in its record what is there now."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import canonical_json, digest_of, read_table, write_json, write_table, writing_table
from manifests.journal import FileRecord, ShardRecord
from manifests.schema import CARRIED
from manifests.tables import ENCODING
from manifests.weights import sha256_file
from pipeline.execution.step import Step
from pipeline.maintenance.remove.redact_file import RemovedRows, from_table, from_tar
from pipeline.steps.fetch.pairs import stats
from pipeline.steps.score import NO_NUMBER, Score, ScoreWorker

REASON = {"fetch": "error_message"}
"""Step -> column of its table that says why a row has no output; `reason` in the others."""


class DamagedRun(ValueError):
    """A file of the run is not what its record says; the message names it."""


class Stray(DamagedRun):
    """A file that no record names cannot be searched for rows; the message says to move it away."""


def redact_record(step: Step, record: ShardRecord, root: Path, gone: RemovedRows) -> ShardRecord:
    """Take the rows out of a finished unit's files; return its record, under its old key, the same where it held none
    of them.

    `root` is the run that the step's folder is a copy of.
    """
    if step.name == "select":
        return _redacted(step, record, root, gone)
    taken: pa.Table | None = None
    samples, dropped = 0, Counter[str]()
    for file in record.files:
        path, what = step.root / file.path, str(Path(file.path).parent)
        if path.suffix == ".tar":
            samples += from_tar(path, gone, f"{what}/*.tar")
        elif path.suffix == ".parquet":
            cut = from_table(path, gone, f"{what}/*.parquet")
            taken = cut if taken is None else taken
    if taken is not None:
        named = REASON.get(step.name, "reason")
        dropped = Counter(taken[named].drop_null().to_pylist()) if named in taken.schema.names else dropped
    rows = samples if taken is None else taken.num_rows
    if not rows:
        return record
    left = {reason: count - dropped[reason] for reason, count in record.dropped.items()}
    left = {reason: count for reason, count in left.items() if count}
    made = replace(
        record, rows_in=record.rows_in - rows, rows_out=record.rows_out - rows + dropped.total(), dropped=left
    )
    _follow(step, made)
    return replace(made, files=tuple(_measured(step, file, root) for file in record.files))


def _measured(step: Step, file: FileRecord, root: Path) -> FileRecord:
    """Return the record of a file that may have been written anew."""
    path = step.root / file.path
    old = root / file.path
    if old.exists() and path.samefile(old):
        return file
    if old.exists() and sha256_file(old) != file.sha256:  # written anew, what is damaged would pass for whole
        raise DamagedRun(f"{old} is damaged: it has not the sha256 that its journal names")
    counted = _last_attempts(path) if file.counted else ""
    return replace(FileRecord.of(step.root, path), counted=counted)


def _last_attempts(path: Path) -> str:
    """Return what counts of a ledger of attempts, as `attempts.write_ledger` does."""
    table = read_table(path)
    rows = table.filter(table["last"]).to_pylist()
    return digest_of(
        [[row["uid"].hex(), *(row[name] for name in ("http_status", "reason", "rule", "value"))] for row in rows]
    )


def _follow(step: Step, made: ShardRecord) -> None:
    """Write what counts rows of the shard again: img2dataset's statistics, and the numbers that a model did not
    give."""
    for file in made.files:
        path = step.root / file.path
        if path.name.endswith("_stats.json"):
            write_json(path, stats(made.rows_in, Counter(made.dropped)))
        elif isinstance(step, Score) and path.suffix == ".parquet":
            _no_numbers(step, path, made.shard)


def _no_numbers(step: Score, path: Path, shard: str) -> None:
    table = read_table(path)
    metadata: dict[Any, Any] = dict(table.schema.metadata)
    if not json.loads(metadata.get(NO_NUMBER.encode(), b"{}")):
        return
    given = {row["key"]: row for row in read_table(step.root / "pairs" / f"{shard}.parquet").to_pylist()}
    counts = ScoreWorker.no_numbers(step, table.to_pylist(), given)
    write_table(path, table.replace_schema_metadata({**metadata, NO_NUMBER.encode(): canonical_json(counts)}))


def _redacted(step: Step, record: ShardRecord, root: Path, gone: RemovedRows) -> ShardRecord:
    """Turn rows of the select ledger into dropped ones that say nothing but where they stood."""
    path = step.root / record.files[0].path
    table = read_table(path)
    hit = gone.rows(table)
    if not pc.any(hit).as_py():
        return record
    fields = table.schema
    hidden = ("uid", "url", *CARRIED)
    columns = [
        pc.if_else(hit, pa.scalar(None, f.type), table[f.name])
        if f.name in hidden
        else (pc.if_else(hit, "removed", table["reason"]) if f.name == "reason" else table[f.name])
        for f in fields
    ]
    made = pa.table(columns, schema=fields)
    with writing_table(path, fields, **ENCODING) as writer:
        writer.write(made.replace_schema_metadata(None))
    reasons = Counter(made["reason"].drop_null().to_pylist())
    gone.counts["ledger/select/*.parquet"] += int(pc.sum(hit).as_py())
    files = tuple(_measured(step, file, root) for file in record.files)
    return replace(
        record, files=files, rows_out=record.rows_in - reasons.total(), dropped=dict(sorted(reasons.items()))
    )
