"""Take rows out of what later steps and commands have made of them in earlier runs: their shards, their plans, reports,
and tables that no record names."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from manifests.checksums import sha256_file
from manifests.files import FormatError
from manifests.journal import ShardRecord, records_of
from manifests.plans import note_plan, plan_folder
from manifests.regular_files import walk
from manifests.store import drop, is_remote, scratch_of
from manifests.tombstones import TOMBSTONES
from pipeline.execution.redaction import RemovedRows, from_lines, from_table, from_tar, holds
from pipeline.execution.step import Step

KINDS = (".parquet", ".tar")
READ_BY_TRAINING = ("joins", "selections")
"""Folders of logs/ in which the trainer keeps captions and choices of samples without uids: it makes them again."""
OUTDATED = ""
"""The key of a shard from which rows went: no plan asks for it, so that the next run of its step makes it anew, from
the rows that stay."""


def redact_later(steps: Sequence[Step], removed: RemovedRows) -> None:
    """Take the rows that go out of everything that these steps, at work in a copy of the run, have left there.

    A shard that cannot be read goes whole: nobody can tell what is in it.
    """
    for step in steps:
        gone = []
        for record in records_of(step.root, step.name):
            try:
                stays = _redact_shard(step, record, removed)
            except (OSError, FormatError) as error:
                print(f"{step.name} {record.shard}: damaged, and let go; it is made anew ({error})", file=sys.stderr)
                stays = False
            gone += [] if stays else [record]
        forget(step, gone)
        step.journal.compact()
        redact_plan(step.root, step.name, removed)


def redact_reports(root: Path, removed: RemovedRows) -> None:
    """Drop what commands have written about rows, and take the rows out of tables and tars that no step wrote."""
    (root / "report.html").unlink(missing_ok=True)
    drop(root / "recheck")
    for path in tables_and_tars(root):
        if path != root / TOMBSTONES:
            _redact_loose(path, removed)


def tables_and_tars(root: Path) -> list[Path]:
    """Return every table and tar below a folder, in order; of a store by its listings alone, and tars first: the table
    beside one says whether it is looked at."""
    if is_remote(root):
        found = (folder / name for folder, _, names in walk(root) for name in names if name.endswith(KINDS))
        return sorted(found, key=lambda path: (path.suffix != ".tar", path))
    return sorted(path for path in root.rglob("*") if path.suffix in KINDS and path.is_file())


def redact_logs(root: Path, copy: Path, removed: RemovedRows) -> None:
    """Drop the lines of logs that name a row which goes, and what the trainer has made of the rows: in the copy of the
    run, and where a run in a store keeps logs of its workers on this machine, there."""
    for name in READ_BY_TRAINING:
        drop(copy / "logs" / name)
        if is_remote(root):
            drop(scratch_of(root) / "logs" / name)
    for path in sorted(path for path in (copy / "logs").rglob("*") if path.is_file()):
        from_lines(path, removed, "logs")
    for path in sorted(_local_logs(root)):
        from_lines(path, removed, "logs")


def _local_logs(root: Path) -> Iterator[Path]:
    if is_remote(root):
        yield from (path for path in (scratch_of(root) / "logs").rglob("*") if path.is_file())


def redact_plan(root: Path, step: str, removed: RemovedRows) -> None:
    """Take the rows that go out of what a step has planned, and note the tables that stay."""
    folder = plan_folder(root, step)
    tables = sorted(folder.glob("*.parquet"))
    redacted = [path for path in tables if from_table(path, removed, f"plan/{step}") is not None]
    if redacted:
        note_plan(folder, {path.name: sha256_file(path) for path in tables})


def forget(step: Step, records: Sequence[ShardRecord]) -> None:
    """Drop shards, files and records."""
    for file in (file for record in records for file in record.files):
        (step.root / file.path).unlink(missing_ok=True)
    step.journal.forget([record.shard for record in records])


def _redact_shard(step: Step, record: ShardRecord, removed: RemovedRows) -> bool:
    """Take the rows out of a shard; return False for one that is to go whole."""
    texts = [step.root / file.path for file in record.files if file.path.endswith(".json")]
    if any(removed.speaks(line) for path in texts for line in path.read_bytes().splitlines()):
        return False
    redacted = step.redact(record, removed)
    if redacted != record:
        step.journal.record(replace(redacted, key=OUTDATED))
    return True


def _redact_loose(path: Path, removed: RemovedRows) -> None:
    try:
        if holds(path, removed):
            (from_table if path.suffix == ".parquet" else from_tar)(path, removed, "earlier")
    except (OSError, FormatError):
        return  # no table of ours; what a record names is damaged is verify's to say
