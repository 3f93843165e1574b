"""Keep a record of each shard that a step has finished, its files and counts, in the step's journal."""

import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from manifests.files import TEMPORARY, FormatError, digest_of, read_json, unsealed, write_bytes, write_json
from manifests.reasons import ASKED_AGAIN
from manifests.record_table import StoredRecords, record_bytes, stored_records
from manifests.regular_files import read_plain
from manifests.remote_path import RemotePath, read_all
from manifests.shard_record import (
    ConservationError,
    FileRecord,
    ShardRecord,
    by_kind,
    conserve,
    kept_by_kind,
    parse_record,
    total_dropped,
)
from manifests.store import Scanned, is_remote, same_bytes, scan, unlink_all

__all__ = [
    "STEP",
    "ConservationError",
    "FileRecord",
    "Journal",
    "ShardRecord",
    "by_kind",
    "conserve",
    "is_note",
    "kept_by_kind",
    "parse_record",
    "records_of",
    "total_dropped",
    "upstream",
]

AGE_NS = 200_000_000
MOST = 1 << 18
"""Records that a process remembers of JSONs: 1.4 kB each."""
State = tuple[int, int, int, int]
_REMEMBERED: dict[State, ShardRecord] = {}
_TABLES: dict[Path, tuple[State, StoredRecords | FormatError]] = {}
MOST_TABLES = 32
COPY = ".copy.parquet"
"""How the name of a table's copy ends."""
STEP = "step.json"
"""In a step's journal: under which settings and weights the step was done last."""


class Journal:
    """What a step has finished: one renamed JSON a shard, below `manifests/journal/STEP/` of the run folder, and of
    those that it had finished when it ended one table, `manifests/journal/STEP.parquet`, twice the same. Of a shard
    that has both the JSON is the newer record."""

    def __init__(self, root: Path, step: str) -> None:
        self.root, self.step = root, step
        self.folder = root / "manifests" / "journal" / step

    @property
    def tables(self) -> tuple[Path, Path]:
        """Return where the table lies, and its copy."""
        return self.folder.with_name(f"{self.folder.name}.parquet"), self.folder.with_name(f"{self.folder.name}{COPY}")

    def record(self, record: ShardRecord) -> None:
        """Write a shard's record: from now on the shard counts as done."""
        write_json(self.path(record.shard), asdict(record), sealed=True)

    def path(self, shard: str) -> Path:
        """Return where a shard's record is written."""
        return self.folder / f"{shard}.json"

    def get(self, shard: str) -> ShardRecord | None:
        """Return a shard's record, or None where there is none or it is damaged (the shard is then made again)."""
        try:
            facts = self.path(shard).stat()
        except OSError:
            return self._in_table(shard)
        return _named(shard, _read(self.path(shard), facts))

    def note(self) -> dict[str, Any] | None:
        """Return the note of how the step was done last (`own_key`, `settings`), or None where there is none or it is
        damaged."""
        try:
            note = read_json(self.folder / STEP)
        except (OSError, FormatError):
            return None
        return note if is_note(note, self.step) else None

    def done(self, shard: str, key: str, *, now: bool = False) -> ShardRecord | None:
        """Return the record if the shard was made under this key, its files are all there, and no row of it is to be
        asked again: one died, or a fault may have passed. `now`: only one that was written since the step ended last,
        also with such rows: what this run has found out about a row it does not try again."""
        record = self.get(shard) if not now or self.path(shard).exists() else None
        whole = (
            record
            and record.key == key
            and (now or record.dropped.keys().isdisjoint(ASKED_AGAIN))
            and all(f.is_whole(self.root) for f in record.files)
        )
        return record if whole else None

    def written(self) -> dict[str, ShardRecord | None]:
        """Return shard -> record, None for a damaged one, of the JSONs."""
        try:
            with scan(self.folder) as entries:
                there = [(entry.name.removesuffix(".json"), entry) for entry in entries if entry.name.endswith(".json")]
        except FileNotFoundError:
            return {}
        wanted = [(name, entry) for name, entry in there if entry.name != STEP and not name.startswith(TEMPORARY)]
        if is_remote(self.folder):
            _read_together(self.folder, wanted)
        return {name: _listed(self.folder, entry) for name, entry in wanted}

    def compacted(self) -> Mapping[str, ShardRecord]:
        """Return shard -> record of the table, or of its copy where the table is damaged or lost."""
        for path in self.tables:
            try:
                return _table(path, self.step).all
            except (OSError, FormatError):
                continue
        return {}

    def _in_table(self, shard: str) -> ShardRecord | None:
        for path in self.tables:
            try:
                return _table(path, self.step).get(shard)
            except (OSError, FormatError):
                continue
        return None

    def records(self) -> dict[str, ShardRecord]:
        """Return shard -> record of all whole records."""
        return self._with(self.written())

    def _with(self, written: Mapping[str, ShardRecord | None]) -> dict[str, ShardRecord]:
        every = {**self.compacted(), **written}
        return {shard: record for shard, record in every.items() if record is not None}

    def compact(self) -> None:
        """Gather all whole records in the table, once the step has ended, and drop the JSONs that it holds now.

        Killed at any moment it leaves what reads the same. Nothing is written where there are no such JSONs.
        """
        written = self.written()
        fresh = {shard for shard, record in written.items() if record is not None}
        if fresh:
            self.write(self._with(written))
        unlink_all(self.path(shard) for shard in fresh)

    def write(self, records: Mapping[str, ShardRecord]) -> None:
        """Write the table of these records, and its copy; drop both where there is none."""
        data = record_bytes(self.step, records.values()) if records else b""
        for path in self.tables:
            write_bytes(path, data) if data else path.unlink(missing_ok=True)

    def heal(self) -> str:
        """Make the table and its copy the same again where one is damaged, lost or older; return what the user is told
        of it, nothing where both could be read.

        Raises FormatError where neither can be read, which is no reason to make again what was paid for.
        """
        table, copy = self.tables
        states = [_fault(table, self.step)]
        if states[0] is None and copy.is_file() and same_bytes(table, copy):
            return ""
        states.append(_fault(copy, self.step))
        if None not in states:
            if any(path.exists() for path in self.tables):
                raise FormatError(f"{states[0]}; {states[1]}")
            return ""
        self.write(self.compacted())
        return next((f"{self.step}: {fault}: written again from its copy" for fault in states if fault), "")

    def forget(self, shards: Collection[str]) -> None:
        """Remove the records of these shards, wherever they lie."""
        before = self.compacted()
        if not before.keys().isdisjoint(shards):
            gone = set(shards)
            self.write({shard: record for shard, record in before.items() if shard not in gone})
        unlink_all(self.path(shard) for shard in shards)

    def forget_others(self, shards: Iterable[str]) -> int:
        """Remove records and files of shards that the plan no longer holds; return how many went."""
        gone = sorted({*self.compacted(), *self.written()} - set(shards))
        for shard in gone:
            record = self.get(shard)
            unlink_all(self.root / file.path for file in (record.files if record else ()))
        self.forget(gone)
        return len(gone)


def is_note(value: Mapping[str, Any], step: str) -> bool:
    """Tell whether a JSON object is the note of how this step was done last."""
    whole = isinstance(value.get("own_key"), str) and isinstance(value.get("settings"), dict)
    return whole and value.get("step", step) == step  # older notes do not say whose they are


def records_of(root: Path, step: str) -> list[ShardRecord]:
    """Return the records of a step's finished units, by name."""
    records = Journal(root, step).records()
    return [records[shard] for shard in sorted(records)]


def _listed(folder: Path, entry: Scanned) -> ShardRecord | None:
    try:
        facts = entry.stat()
    except OSError:  # a link that leads nowhere, or gone meanwhile
        return None
    return _named(entry.name.removesuffix(".json"), _read(folder / entry.name, facts))


def _read_together(folder: Path, listed: Sequence[tuple[str, Scanned]]) -> None:
    """Remember those records of a store that this process has not read, by requests that go out together."""
    fresh = [(folder / entry.name, _state(entry.stat())) for _, entry in listed]
    fresh = [(path, state) for path, state in fresh if state not in _REMEMBERED]
    paths = [path for path, _ in fresh if isinstance(path, RemotePath)]
    for (path, state), data in zip(fresh, read_all(paths), strict=True):
        if data is not None:
            _remember(state, _parsed(path, data))


def _named(shard: str, record: ShardRecord | None) -> ShardRecord | None:
    return record if record is not None and record.shard == shard else None


def _state(facts: os.stat_result) -> State:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _table(path: Path, step: str) -> StoredRecords:
    """Return the records of a step's table, which a process reads once as long as it stays as it is (see `_read`).
    Raises FormatError, OSError."""
    facts = path.stat()
    known = _TABLES.get(path)
    if known is None or known[0] != _state(facts):
        aged = time.time_ns() - facts.st_mtime_ns > AGE_NS
        known = _state(facts), _read_table(path, step)
        _TABLES.pop(path, None)
        if aged:
            if len(_TABLES) >= MOST_TABLES:
                _TABLES.clear()
            _TABLES[path] = known
    if isinstance(known[1], FormatError):
        raise known[1]
    return known[1]


def _read_table(path: Path, step: str) -> StoredRecords | FormatError:
    try:
        return stored_records(path, step)
    except FormatError as error:
        return error


def _fault(path: Path, step: str) -> str | None:
    """Say why the records of a table cannot be read, None where they can."""
    try:
        _ = _table(path, step).all
    except (OSError, FormatError) as error:
        return str(error) if isinstance(error, FormatError) else f"{path}: {error.strerror}"
    return None


def _read(path: Path, facts: os.stat_result) -> ShardRecord | None:
    """Return the record in a file, None for a damaged one; a process reads a file that stays as it is once.

    Records are replaced by renames, so that a file is one content for ever. One that was changed within AGE_NS is not
    remembered: another of its size could take its inode within one tick of the disk's clock.
    """
    known = _state(facts)
    if known in _REMEMBERED:
        return _REMEMBERED[known]
    read_at = time.time_ns()
    try:
        record = _parsed(path, read_plain(path))
    except OSError:
        return None
    if read_at - facts.st_mtime_ns > AGE_NS:
        _remember(known, record)
    return record


def _parsed(path: Path, data: bytes) -> ShardRecord | None:
    try:
        return parse_record(path, unsealed(path, data)[0])
    except FormatError:
        return None


def _remember(state: State, record: ShardRecord | None) -> None:
    if record is None:
        return
    if len(_REMEMBERED) >= MOST:
        _REMEMBERED.clear()
    _REMEMBERED[state] = record


def upstream(root: Path, *steps: str) -> str:
    """Return a digest of everything that these steps have made: what a step over all of it reads."""
    return digest_of([[step, record.shard, record.content] for step in steps for record in records_of(root, step)])
