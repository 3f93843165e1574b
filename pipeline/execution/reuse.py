"""Carry rows over from shards that another plan left, so that new thresholds fetch nothing and run no model again.

A shard whose plan changed is set aside (hard links below `.earlier/STEP/`) before it is made anew; workers look there,
and in `aside/STEP/` (see fallen.py), for rows made the same way. What is carried over is what would be made again, so
that the bytes do not depend on it. An index, made once a step, leads a unit to the few groups that hold its rows.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.hamming import distinct
from manifests.aside import ASIDE, UNDER_WAY, Group, groups, read_group, unrecorded
from manifests.files import FormatError, digest_of, open_table, read_field, read_schema, write_json, writing
from manifests.journal import AGE_NS, FileRecord, ShardRecord
from manifests.query import FILES, connect, files_sql
from manifests.reasons import ASKED_AGAIN
from manifests.store import drop, is_remote, local_scratch, mapped
from manifests.store import link as copy_within

if TYPE_CHECKING:
    import duckdb
MADE_BY = "tessera_made_by"
"""Parquet metadata: the digest of everything but the rows that the values depend on."""
INDEX, DAMAGED = "index", "damaged"
"""Folders in `.earlier/STEP/`: which group holds which row; an empty file for each group that was found damaged."""
KEPT = (".parquet", ".tar")
"""Files of a shard that hold rows; its statistics are counted again."""
_WHOLE: "set[tuple[int, int, int, int, str]]" = set()
"""Files that this process has found whole, as they were then, and their sha256: some 200 bytes each."""


def stamp(table: pa.Table, made_by: str, **facts: str) -> pa.Table:
    """Return the table with the digest that says how its values were made, and other facts, in its metadata."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), MADE_BY: made_by, **facts})


def stamped(paths: Iterable[Path]) -> tuple[Path, str] | None:
    """Return the first of these files that is a table with a stamp, and the stamp; None without one."""
    for path in paths:
        try:
            made_by = read_schema(path).metadata.get(MADE_BY.encode()) if path.suffix == ".parquet" else None
        except (OSError, FormatError):
            continue
        if made_by is not None:
            return path, made_by.decode("ascii", "replace")
    return None


def link(source: Path, target: Path) -> None:
    """Let `target` hold what `source` does: a hard link where the disk has them, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    if is_remote(target):
        copy_within(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        with writing(target) as temporary:
            shutil.copyfile(source, temporary)


def set_aside(root: Path, step: str, records: Iterable[ShardRecord]) -> list[str]:
    """Keep the tables and tars of these records under `.earlier/STEP/` while their shards are made anew; return what to
    tell of files that are lost."""
    folder, said = root / UNDER_WAY / step, []
    for record in records:
        name = digest_of([[file.path, file.sha256] for file in record.files])[:24]
        whole = [file for file in record.files if Path(file.path).suffix in KEPT and file.is_whole(root)]
        marked = stamped(root / file.path for file in whole)
        if (folder / f"{name}.json").exists():
            continue
        lost = [file.path for file in record.files if Path(file.path).suffix in KEPT and file not in whole]
        if marked is None or lost:
            said.append(_lost(step, record, lost or [file.path for file in record.files], marked is None))
        if marked is None:
            continue
        files, table = [], ""
        for file in whole:
            kept = f"{name}-{Path(file.path).parts[0]}{Path(file.path).suffix}"
            link(root / file.path, folder / kept)
            files.append(FileRecord(kept, file.sha256, file.bytes))
            table = kept if root / file.path == marked[0] else table
        Group(folder, name, step, marked[1], record.rows_in, table, tuple(files)).write()
    return said


def _lost(step: str, record: ShardRecord, paths: Sequence[str], whole: bool) -> str:
    rows = f"its {record.rows_in:,} rows are" if whole else "what it held is"
    return f"warning: {step}: {paths[0]} is missing or damaged: {rows} not set aside"


def adopt(root: Path, step: str) -> list[str]:
    """Write records for what an older version left below `.earlier/STEP/`, as its files are now; drop what has no
    readable table, and return what to tell of it."""
    folder, said = root / UNDER_WAY / step, []
    names = sorted({path.name.rpartition("-")[0] for path in unrecorded(folder)})
    for name in names:
        paths = sorted(path for path in folder.glob(f"{name}-*") if path.suffix in KEPT)
        marked = stamped(paths)
        if marked is None:
            for path in paths:
                path.unlink()
                said.append(f"warning: {step}: {path.relative_to(root)} is damaged and dropped")
            continue
        files = tuple(FileRecord.of(folder, path) for path in paths)
        with open_table(marked[0]) as file:
            rows = file.metadata.num_rows
        Group(folder, name, step, marked[1], rows, marked[0].name, files).write()
    return said


def note_places(root: Path, step: str, made_by: Collection[str]) -> None:
    """Write the index of a step's groups that were made in one of these ways: the first 8 bytes of every uid, sorted,
    and the number of its group; 12 bytes a row. Before any worker starts."""
    folder = root / UNDER_WAY / step / INDEX
    drop(folder)
    found = [group for place in (ASIDE, UNDER_WAY) for group in groups(root, place, step) if group.made_by in made_by]
    readable = [group for group in found if stamped([group.folder / group.table]) is not None]
    try:
        _write_index(root, folder, [group.folder / group.table for group in readable])
    except FormatError:  # a table whose footer is whole and whose pages are not
        readable = [group for group in readable if not group.damaged()]
        _write_index(root, folder, [group.folder / group.table for group in readable])
    for group in [group for group in found if group not in readable]:
        note_damage(root, group)
    if readable:
        names = [group.path.relative_to(root).as_posix() for group in readable]
        write_json(folder / "groups.json", {"groups": names})


def _write_index(root: Path, folder: Path, tables: list[Path]) -> None:
    if not tables:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with connect(root) as connection, _beside(folder) as place:
        entries, copies = _entries(connection, place, tables)
        (count,) = connection.execute(f"SELECT count(*) FROM {entries}").fetchone() or (0,)
        with writing(folder / "keys.npy") as one, writing(folder / "numbers.npy") as two:
            keys = np.lib.format.open_memmap(one, "w+", np.dtype("<u8"), (count,))
            numbers = np.lib.format.open_memmap(two, "w+", np.dtype("<u4"), (count,))
            start = 0
            for batch in connection.execute(f"FROM {entries} ORDER BY uid").to_arrow_reader():
                rows = slice(start, start + batch.num_rows)
                keys[rows], numbers[rows] = _keys(batch["uid"].to_pylist()), batch["number"].to_numpy()
                start = rows.stop
            keys.flush()
            numbers.flush()
        for path in copies:
            path.unlink()


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yield the folder that DuckDB writes into on its way to an index: the index's own, for a store one of this
    machine."""
    place = local_scratch(folder) if is_remote(folder) else folder
    try:
        yield place
    finally:
        if place != folder:
            drop(place)


def _entries(connection: "duckdb.DuckDBPyConnection", folder: Path, tables: list[Path]) -> tuple[str, list[Path]]:
    """Return SQL of every row's (uid, number of its table), and the files below `folder` that hold them where there
    are too many tables to be opened at once."""
    if len(tables) <= FILES:
        return f"(SELECT uid, file_index AS number FROM {files_sql(tables)})", []
    copies = []
    for start in range(0, len(tables), FILES):
        path = folder / f"{start}.parquet"
        query = f"SELECT uid, file_index + {start} AS number FROM {files_sql(tables[start : start + FILES])}"
        quoted = str(path).replace("'", "''")
        connection.execute(f"COPY ({query}) TO '{quoted}' (FORMAT parquet)")
        copies.append(path)
    return f"(SELECT uid, number FROM {files_sql(copies)})", copies


def _keys(uids: Collection[bytes]) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """Return the first 8 bytes of each uid as a number that sorts as the bytes do."""
    return np.frombuffer(b"".join(uids), ">u8")[::2].astype("<u8")


def _holding(root: Path, step: str, uids: Collection[bytes]) -> list[Group]:
    """Return the groups that may hold these rows: by the index, else all of the step's."""
    folder = root / UNDER_WAY / step / INDEX
    try:
        names = read_field(folder / "groups.json", "groups", list)
    except FileNotFoundError:
        return [group for place in (ASIDE, UNDER_WAY) for group in groups(root, place, step)]
    keys, numbers = (np.load(mapped(folder / f"{name}.npy"), mmap_mode="r") for name in ("keys", "numbers"))
    if not len(keys) or not uids:
        return []
    wanted = distinct(_keys(uids))
    low, high = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
    hit: set[int] = set()
    while (there := low < high).any():
        low, high = low[there], high[there]
        hit.update(np.unique(numbers[low]).tolist())
        low = low + 1
    return [read_group(root / names[number]) for number in sorted(hit)]


def note_damage(root: Path, group: Group) -> None:
    """Note for the driver that a group is not as its record says, and is not used."""
    mark = root / UNDER_WAY / group.step / DAMAGED / group.name
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def earlier_tables(root: Path, step: str, made_by: str, uids: Collection[bytes]) -> Iterator[tuple[Path, pa.Table]]:
    """Yield (path, these rows of it) of each table that was set aside and made the same way.

    A group is used only where each of its files has its recorded sha256; one that is damaged is noted and passed over.
    """
    values = pa.array(list(uids), pa.binary(16))
    for group in _holding(root, step, uids) if len(values) else ():
        if group.made_by != made_by:
            continue
        if not _is_whole(group):
            note_damage(root, group)
            continue
        table = _rows(group.folder / group.table, values)
        if table.num_rows:
            yield group.folder / group.table, table


def _rows(path: Path, values: pa.Array) -> pa.Table:
    """Return the rows of a table with these uids; row groups without any are not read."""
    with open_table(path) as file:
        hit = pc.is_in(file.read(["uid"])["uid"], values).to_numpy()
        ends = np.cumsum([file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)])
        groups = distinct(np.searchsorted(ends, np.flatnonzero(hit), "right").astype(np.uint64))
        if not len(groups):
            return file.schema_arrow.empty_table()
        table = file.read_row_groups(groups.tolist())
        return table.filter(pc.is_in(table["uid"], values))


def _is_whole(group: Group) -> bool:
    """Tell whether each file of a group has its recorded sha256; a process looks at every byte of a file once, while
    the file stays as it is."""
    found = []
    for file in group.files:
        try:
            facts = (group.folder / file.path).stat()
        except OSError:
            return False
        found.append((facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, file.sha256))
    if all(known in _WHOLE for known in found):
        return True
    if group.damaged():
        return False
    _WHOLE.update(known for known in found if time.time_ns() - known[3] > AGE_NS)
    return True


def earlier_rows(
    root: Path, step: str, made_by: str, uids: Collection[bytes], digest: str = "sha256"
) -> dict[tuple[bytes, bytes], dict[str, Any]]:
    """Return (uid, digest of the bytes that the row was made from) -> row of what was set aside and made the same way.

    `digest`: the column that holds it. Rows that are asked again, and those that were made from nothing, stay out.
    """
    rows = {}
    for _, table in earlier_tables(root, step, made_by, uids):
        for row in table.to_pylist():
            if row["reason"] not in ASKED_AGAIN and row[digest] is not None:
                rows[row["uid"], row[digest]] = row
    return rows
