"""Find the input's Parquet files and name them by size and footer, so that a run folder belongs to one data set, which
may grow."""

import hashlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.files import FormatError, read_json, write_json
from manifests.journal import FileRecord, records_of
from pipeline.inputs.parquet import UNREADABLE, RowGroups, open_input
from pipeline.recipes.datasets import DATASETS, SAYS, kind_of, readers_of
from pipeline.recipes.rules import input_columns
from pipeline.recipes.schema import Recipe, RecipeError

LEDGER = "input.json"
TAIL = 64 * 1024
"""Bytes at a file's end that stand for its footer where it has none that can be read."""
BLOCK = 1 << 20
LOOKERS = 8
"""Footers read at a time: a remote store answers slowly."""


@dataclass(frozen=True)
class InputFile:
    """One input file: `name` without its folder, `groups` = rows of each row group; `fault` where it cannot be opened.

    `footer` is the sha256 of its Parquet footer, which holds place, size and extremes of every column of every row
    group.
    `seen` is what the file system says of it (time, inode, ETag): as long as that stays, nothing is read to know it
    again.
    `raw` is the kind of a file that is no table yet (tables.py makes one). `pictures`: the tar, or the folder, that
    holds its pictures.
    `batch` counts the times that files were added to the run folder: 0 for those it began with.
    """

    url: str
    name: str
    bytes: int
    footer: str
    groups: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()
    fault: str = ""
    seen: str = ""
    batch: int = 0
    raw: str = ""
    pictures: str = ""
    made: tuple[str, str, int] | tuple[()] = ()
    """The table that was made of a raw file: path in the run folder, sha256, bytes."""

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Return the wanted columns that a readable file does not have."""
        return [] if self.fault or self.raw else [name for name in wanted if name not in self.columns]

    @property
    def rows(self) -> int:
        """Return the number of rows that the footer promises."""
        return sum(self.groups)

    def record(self) -> dict[str, Any]:
        """Return the manifest entry: what the file holds, not where it lies."""
        return {"name": self.name, "bytes": self.bytes, "footer_sha256": self.footer, "rows": self.rows}


def _filesystem(pattern: str) -> tuple[Any, str]:
    """Return fsspec's file system and the path in it. Raises RecipeError for a protocol that it does not know or cannot
    load."""
    try:
        filesystem, path = fsspec.url_to_fs(pattern)
    except (ValueError, ImportError) as error:
        raise RecipeError(f"input.files: {pattern!r} cannot be opened by fsspec: {error}") from error
    return filesystem, path


def find_files(recipe: Recipe) -> list[str]:
    """Return the input's files as URLs, sorted; of a tar and its table the table. Raises RecipeError when there are
    none."""
    patterns = [recipe.input.files] if isinstance(recipe.input.files, str) else recipe.input.files
    dataset = DATASETS[recipe.input.dataset]
    found: set[str] = set()
    for pattern in patterns:
        filesystem, path = _filesystem(pattern)
        paths = [f"{path.rstrip('/')}/*{ending}" for ending in dataset.endings] if filesystem.isdir(path) else [path]
        matches = {match for each in paths for match in filesystem.glob(each) if not filesystem.isdir(match)}
        found.update(filesystem.unstrip_protocol(match) for match in matches)
    if dataset.kind == "tar":
        found = {_table_of_tar(url) for url in found if url.endswith(dataset.endings)}
    if not found:
        wanted = " or ".join(dataset.endings)
        raise RecipeError(
            f"input.files: no file matches {', '.join(map(repr, patterns))};"
            f" {recipe.input.dataset!r} wants {SAYS[dataset.kind]} ({wanted}): give files, a folder or a glob"
        )
    return sorted(found)


def _table_of_tar(url: str) -> str:
    """Return the table beside a tar, or the tar where there is none."""
    table = f"{url.rpartition('.')[0]}.parquet"
    filesystem, path = fsspec.url_to_fs(table)
    return table if filesystem.exists(path) else url


def look_at_inputs(recipe: Recipe) -> list[InputFile]:
    """Open every file once; one that cannot be opened keeps its `fault`.

    Raises RecipeError when a readable file has no column for the URLs, or all files are of another kind: that is the
    recipe's mapping, not a data fault.
    """
    urls = find_files(recipe)
    names = _short_names(urls)
    with ThreadPoolExecutor(LOOKERS) as pool:
        kinds = list(pool.map(_kind, urls))
        _check_kinds(recipe, names, kinds)
        return list(pool.map(lambda url, name, kind: _look(url, name, recipe, kind), urls, names, kinds))


def _kind(url: str) -> str:
    """Return what a file is, by its first bytes; "?" where it cannot be opened."""
    try:
        with open_input(url) as file:
            return kind_of(file.read(512))
    except OSError:
        return "?"


def _check_kinds(recipe: Recipe, names: list[str], kinds: list[str]) -> None:
    """Raise RecipeError when every file is of a known kind that this data set is not made of."""
    dataset = DATASETS[recipe.input.dataset]
    fits = {"parquet": {"parquet"}, "jsonl": {"jsonl", "text"}, "tar": {"parquet", "tar"}}[dataset.kind]
    if all(kind in SAYS and kind not in {*fits, "text", "empty", "?"} for kind in kinds):
        others = readers_of(kinds[0])
        raise RecipeError(
            f"input: {names[0]} is {SAYS[kinds[0]]}; input.dataset = {recipe.input.dataset!r} wants"
            f" {SAYS[dataset.kind]}"
            + (
                f"; data sets of that kind: {others}"
                if others
                else "; unpack it first"
                if kinds[0] in ("gzip", "zip")
                else ""
            )
        )


def _short_names(urls: list[str]) -> list[str]:
    """Return names relative to the deepest folder that all files share."""
    paths = [PurePosixPath(url.split("://", 1)[-1]) for url in urls]
    shared = paths[0].parent
    while not all(path.is_relative_to(shared) for path in paths):
        shared = shared.parent
    return [path.relative_to(shared).as_posix() for path in paths]


def _look(url: str, name: str, recipe: Recipe, kind: str) -> InputFile:
    dataset = DATASETS[recipe.input.dataset]
    try:
        filesystem, path = fsspec.url_to_fs(url)
        seen = str(filesystem.ukey(path))
        if dataset.kind == "jsonl" and kind in ("jsonl", "text", "empty", "?"):
            return InputFile(url, name, *_measure(url), seen=seen, raw="jsonl", pictures=data_folder(recipe))
        if dataset.kind == "tar" and kind != "parquet" and not url.endswith(".parquet"):
            return InputFile(url, name, *_ends(url), seen=seen, raw="tar", pictures=url)
        looked = _look_at_table(url, name, recipe)
        if looked.fault or dataset.kind != "tar":
            return replace(looked, seen=seen)
        tar = f"{url.removesuffix('.parquet')}.tar"
        size, ends = _ends(tar) if filesystem.exists(path.removesuffix(".parquet") + ".tar") else (0, "")
        both = hashlib.sha256(f"{looked.footer} {ends}".encode()).hexdigest()
        return replace(looked, seen=seen, bytes=looked.bytes + size, footer=both, pictures=tar)
    except OSError as error:
        return InputFile(url, name, 0, "", fault=f"cannot be opened: {_first_line(error)}")


def _look_at_table(url: str, name: str, recipe: Recipe) -> InputFile:
    """Read a table's footer. Raises OSError, and RecipeError for one without URLs."""
    with open_input(url) as file:
        size, footer_sha256 = _footer(file)
        file.seek(0)
        try:
            footer = pq.ParquetFile(file).metadata
            names = footer.schema.to_arrow_schema().names
        except UNREADABLE as error:
            return InputFile(url, name, size, footer_sha256, fault=f"not a readable Parquet file: {_first_line(error)}")
    columns, wanted = set(names), input_columns(recipe)["url"]
    twice = sorted(column for column in {*input_columns(recipe).values()} if names.count(column) > 1)
    if twice:
        return InputFile(url, name, size, footer_sha256, fault=f"column {twice[0]!r} stands in it twice")
    if wanted not in columns:
        raise RecipeError(
            f"input: {name} has no column {wanted!r} for the URLs; its columns are {', '.join(sorted(columns))};"
            ' say which one holds them: [input.columns] url = "…"'
        )
    groups = tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups))
    return InputFile(url, name, size, footer_sha256, groups, tuple(sorted(columns)))


def look_at_made(file: InputFile, root: Path, table: Path) -> InputFile:
    """Return a raw file with the table that was made of it."""
    record = FileRecord.of(root, table)
    footer = pq.read_metadata(table)
    groups = tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups))
    columns = tuple(sorted(footer.schema.to_arrow_schema().names))
    made = (record.path, record.sha256, record.bytes)
    return replace(file, url=str(table.absolute()), raw="", groups=groups, columns=columns, made=made)


def data_folder(recipe: Recipe) -> str:
    """Return the folder, as a URL, that holds the data set: `input.images`, else the part of `files` before any
    wildcard."""
    if recipe.input.images is not None:
        filesystem, path = fsspec.url_to_fs(recipe.input.images)
        return str(filesystem.unstrip_protocol(path.rstrip("/") or "/"))
    patterns = [recipe.input.files] if isinstance(recipe.input.files, str) else recipe.input.files
    folders = []
    for pattern in patterns:
        filesystem, path = fsspec.url_to_fs(pattern)
        fixed = path if filesystem.isdir(path) else re.split(r"[*?\[]", path)[0].rpartition("/")[0]
        folders.append((filesystem, fixed.rstrip("/") or "/"))
    (filesystem, first), protocols = folders[0], {type(filesystem) for filesystem, _ in folders}
    return str(
        filesystem.unstrip_protocol(os.path.commonpath([path for _, path in folders]) if len(protocols) == 1 else first)
    )


def _measure(url: str) -> tuple[int, str]:
    """Return a file's size and the sha256 of its content."""
    size, digest = 0, hashlib.sha256()
    with open_input(url) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _ends(url: str) -> tuple[int, str]:
    """Return a tar's size and the sha256 of its first and last TAIL bytes: its middle is read when its pictures are."""
    with open_input(url) as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(TAIL)
        file.seek(max(0, size - TAIL))
        return size, hashlib.sha256(head + file.read(TAIL)).hexdigest()


def _footer(file: Any) -> tuple[int, str]:
    """Return the file's size and the sha256 of its footer (length of the footer and magic included), else of its
    tail."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    length = int.from_bytes(file.read(8)[:4], "little") + 8
    file.seek(max(0, size - (length if length <= size else TAIL)))
    return size, hashlib.sha256(file.read()).hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def claim(root: Path, files: list[InputFile]) -> list[InputFile]:
    """Tie the run folder to this input and return its files in the folder's order, or raise RecipeError for another
    input.

    Files may be added: they come after those that were there, as a batch of their own. A file that was there before
    must be there unchanged, unless it could not be read: then it counts as added when it can.
    """
    before = _read_ledger(root)
    known = [file for file in before if not file.fault]
    left = {file.name: file for file in files}
    stay: list[InputFile] = []
    for file in known:
        found = left.pop(_find(file, left), None)
        if found is None:
            what = "has other content now" if file.name in left else "is not among the files now"
            raise _another(root, file.name, what)
        _check_content(root, file, found)
        stay.append(replace(found, name=file.name, batch=file.batch))
    batch = 1 + max((file.batch for file in before), default=-1)
    still_faulty = {
        file.name: file.batch for file in before if file.fault and file.name in left and left[file.name].fault
    }
    taken = {file.name for file in stay}
    added = [
        replace(file, name=_free(file, taken), batch=still_faulty.get(name, batch))
        for name, file in sorted(left.items(), key=lambda item: (bool(item[1].fault), item[0]))
    ]
    entries = [{**asdict(file), **({"url": file.made[0]} if file.made else {})} for file in (*stay, *added)]
    write_json(root / "manifests" / LEDGER, {"files": entries}, sealed=True)
    return [*stay, *added]


def _another(root: Path, name: str, what: str) -> RecipeError:
    return RecipeError(
        f"{root}: made from another input: {name} {what}; use another output.root (--out DIR) for another input"
    )


def _find(file: InputFile, among: dict[str, InputFile]) -> str:
    """Return the name of the file that this one is now: its own, else one that ends with it (files in other folders
    were added)."""
    names = [file.name, *sorted(name for name in among if name.endswith(f"/{file.name}"))]
    same = [
        name for name in names if name in among and (among[name].bytes, among[name].footer) == (file.bytes, file.footer)
    ]
    return same[0] if same else ""


def _free(file: InputFile, taken: set[str]) -> str:
    """Return a name that no other file has, with as many folders as that takes."""
    path = PurePosixPath(file.url.split("://", 1)[-1])
    names = [file.name, *("/".join(path.parts[-count:]) for count in range(1, len(path.parts) + 1)), file.url]
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def _check_content(root: Path, before: InputFile, now: InputFile) -> None:
    """Raise RecipeError when the bytes that finished units have read are others now.

    Where the file system says that nothing has changed, none are read; remote files are known by their footer alone.
    """
    if now.seen == before.seen:
        return
    runs = [record.read for record in records_of(root, "select") if record.read.get("name") == before.name]
    with RowGroups(now.url) as file:
        for read in runs:
            if file.digest(range(*read["groups"]), read["columns"]) != read["sha256"]:
                raise _another(root, before.name, "has other content now")


def _read_ledger(root: Path) -> list[InputFile]:
    try:
        return claimed(root)
    except (OSError, FormatError, KeyError, TypeError):
        return []


def claimed(root: Path) -> list[InputFile]:
    """Return the files that the run folder belongs to, in its order; tables made of them lie in the folder, wherever
    that is now."""
    return [_input_file(root, entry) for entry in read_json(root / "manifests" / LEDGER)["files"]]


def _input_file(root: Path, entry: dict[str, Any]) -> InputFile:
    made = tuple(entry.get("made", ()))
    url = str((root / made[0]).absolute()) if made else entry["url"]
    return InputFile(
        **{**entry, "url": url, "groups": tuple(entry["groups"]), "columns": tuple(entry["columns"]), "made": made}
    )


def input_batches(root: Path) -> pa.Table:
    """Return a table of source (the file's name) and batch (see InputFile) of the run folder's files."""
    files = claimed(root)
    return pa.table(
        {
            "source": pa.array([file.name for file in files], pa.string()),
            "batch": pa.array([file.batch for file in files], pa.int64()),
        }
    )
