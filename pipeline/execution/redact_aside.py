"""Find removed rows in what was set aside, and take them out of it: what removes rows reaches what no plan holds."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from manifests.aside import ASIDE, UNDER_WAY, Group, groups, steps_aside
from manifests.files import FormatError, read_parquet
from manifests.store import drop
from pipeline.execution.groups import put_together
from pipeline.execution.partial import sweep_partial
from pipeline.execution.redaction import RemovedRows, holds
from pipeline.execution.reuse import INDEX

SCORES = "-scores.parquet"
"""Ends of the tables that say URL and sha256, and pHash, of rows that were set aside."""


def every_group(root: Path) -> Iterator[Group]:
    """Yield what was set aside, for good and while a step is under way."""
    for place in (ASIDE, UNDER_WAY):
        for step in steps_aside(root, place):
            yield from groups(root, place, step)


def files_aside(root: Path, ending: str) -> Iterator[Path]:
    """Yield each file that was set aside and whose name has this end."""
    for group in every_group(root):
        yield from (group.folder / file.path for file in group.files if file.path.endswith(ending))


def uids_of(keys: pa.ChunkedArray) -> pa.Array:
    """Return keys of samples, uids in hex, as uids."""
    return pa.array([bytes.fromhex(key) for key in keys.to_pylist()], pa.binary(16))


def redact_aside(root: Path, removed: RemovedRows) -> None:
    """Take the rows that go out of every group; a group that is damaged goes whole, for
    nobody can tell what is in it, and so do finished rows of half-done units, which cost the work on them alone."""
    sweep_partial(root)
    for step in steps_aside(root, UNDER_WAY):
        drop(root / UNDER_WAY / step / INDEX)
    for group in every_group(root):
        try:
            _redact(group, removed)
        except (OSError, FormatError) as error:
            name = group.path.relative_to(root).as_posix()
            print(f"{name}: damaged, and let go with its {group.rows:,} rows ({error})", file=sys.stderr)
            group.drop()


def _redact(group: Group, removed: RemovedRows) -> None:
    """Put what stays of a group into another one, and drop it. Raises FormatError for one that is damaged and holds
    rows that go."""
    hit = [file.path for file in group.files if holds(group.folder / file.path, removed)]
    if not hit:
        return
    if damaged := group.damaged():
        raise FormatError(f"{damaged[0]} is not of its recorded sha256")
    there = frozenset(read_parquet(group.folder / group.table, ["uid"])["uid"].to_pylist())
    if stay := there - removed.uids:
        put_together(group.folder, [(group, stay)])
    group.drop()
    removed.counts["/".join(group.folder.parts[-2:]).lstrip(".")] += len(there & removed.uids)
