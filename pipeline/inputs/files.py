"""Find the input's Parquet files and name them by size and footer, so that a run folder belongs to one data set, which
may grow."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from manifests.journal import FileRecord
from manifests.schema import COLUMNS
from pipeline.inputs.coerce import is_readable
from pipeline.inputs.errors import BrokenInput
from pipeline.inputs.find import KINDS, find_files, known_digests, literal_folder
from pipeline.inputs.parquet import located, open_input, read_footer, rows_of_groups
from pipeline.inputs.tars import LOST, name_in_utf8
from pipeline.inputs.text_tables import READABLE, coding_of, is_text, look, named_format
from pipeline.recipes.datasets import DATASETS, Dataset
from pipeline.recipes.rules import input_columns
from pipeline.recipes.schema import Recipe, RecipeError

SAYS: dict[str, str] = {
    **KINDS,
    "gzip": "a gzip archive",
    "bzip2": "a bzip2 archive",
    "zstd": "a Zstandard archive",
    "xz": "an xz archive",
    "zip": "a zip archive",
    "arrow": "an Arrow file",
    "array": "one JSON array",
    "text": "text",
    "text table": "a table in text",
    "empty": "an empty file",
    "?": "something else",
}
ARCHIVES = ("gzip", "bzip2", "zstd", "xz", "zip")
TEXT = "text table"
"""The kind of a file that `text_tables` reads."""

MARKS = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"ARROW1": "arrow",
}
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
    unread: tuple[str, ...] = field(default=(), compare=False)
    """Wanted columns whose type cannot be read, with it: TEXT (struct<a: int64>). The list of inputs leaves it out."""

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Return the wanted columns that a readable file does not have."""
        is_unknown = self.fault or (self.raw and not self.columns)
        return [] if is_unknown else [name for name in wanted if name not in self.columns]

    @property
    def rows(self) -> int:
        """Return the number of rows that the footer promises."""
        return sum(self.groups)

    def record(self) -> dict[str, Any]:
        """Return the manifest entry: what the file holds, not where it lies."""
        return {"name": self.name, "bytes": self.bytes, "footer_sha256": self.footer, "rows": self.rows}


def look_at_inputs(recipe: Recipe, notes: list[str] | None = None) -> list[InputFile]:
    """Open every file once; one that cannot be opened keeps its `fault`. What was passed over is said in `notes`.

    Raises RecipeError when a readable file has no column for the URLs, or all files are of another kind: that is the
    recipe's mapping, not a data fault.
    """
    urls, dataset = find_files(recipe, notes), DATASETS[recipe.input.dataset]
    names, digests = [name_in_utf8(name) for name in _short_names(urls)], known_digests(recipe.root)
    with ThreadPoolExecutor(LOOKERS) as pool:
        kinds = list(pool.map(lambda url: _kind(url, dataset), urls))
        _check_kinds(recipe, names, kinds)
        look = lambda url, name, kind: _look(url, name, recipe, kind, digests)  # noqa: E731
        return list(pool.map(look, urls, names, kinds))


def _kind(url: str, dataset: Dataset) -> str:
    """Return what a file is for a data set, by its first bytes, of text by its name too; "?" where it cannot be
    opened."""
    if LOST.search(url):
        return "?"
    try:
        with open_input(url) as file:
            kind = kind_of(file.read(512))
    except OSError:
        return "?"
    named = named_format(url)
    if dataset.kind == "parquet" and kind not in ("parquet", "tar", "zip", "arrow"):
        by_content = kind in ("jsonl", "array") and not url.endswith(".parquet")
        return TEXT if named or by_content else kind
    if dataset.kind == "jsonl" and kind == "text" and named in ("csv", "tsv", "txt"):
        return TEXT
    return "jsonl" if dataset.kind == "jsonl" and kind in ARCHIVES and named == "ndjson" else kind


def _check_kinds(recipe: Recipe, names: list[str], kinds: list[str]) -> None:
    """Raise RecipeError when every file is of a known kind that this data set is not made of."""
    dataset = DATASETS[recipe.input.dataset]
    fits = {"parquet": {"parquet", TEXT}, "jsonl": {"jsonl", "text"}, "tar": {"parquet", "tar"}}[dataset.kind]
    if all(kind in SAYS and kind not in {*fits, "text", "empty", "?"} for kind in kinds):
        others = readers_of("parquet" if kinds[0] == TEXT else kinds[0])
        raise RecipeError(
            f"input: {names[0]} is {SAYS[kinds[0]]}; input.dataset = {recipe.input.dataset!r} wants"
            f" {SAYS[dataset.kind]}"
            + (f"; data sets of that kind: {others}" if others else "; unpack it first" if kinds[0] in ARCHIVES else "")
            + (f"; {READABLE}" if dataset.kind == "parquet" and not others else "")
        )


def _short_names(urls: list[str]) -> list[str]:
    """Return names relative to the deepest folder that all files share."""
    paths = [PurePosixPath(url.split("://", 1)[-1]) for url in urls]
    shared = paths[0].parent
    while not all(path.is_relative_to(shared) for path in paths):
        shared = shared.parent
    return [path.relative_to(shared).as_posix() for path in paths]


def _look(url: str, name: str, recipe: Recipe, kind: str, digests: Mapping[str, str]) -> InputFile:
    """Look at one file; `digests`: what the file system says of files that were read whole before -> their sha256."""
    dataset = DATASETS[recipe.input.dataset]
    if LOST.search(url):
        return InputFile(name_in_utf8(url), name, 0, "", fault="its name, or its folder's, is not UTF-8: rename it")
    try:
        filesystem, path = located(url)
        seen = str(filesystem.ukey(path))
        if kind == TEXT:
            size, digest = (filesystem.size(path), digests[seen]) if seen in digests else _measure(url)
            return _look_at_text(InputFile(url, name, size, digest, seen=seen, raw="text"), recipe)
        if dataset.kind == "jsonl" and kind in ("jsonl", "text", "empty", "?"):
            return InputFile(url, name, *_measure(url), seen=seen, raw="jsonl", pictures=data_folder(recipe))
        if dataset.kind == "tar" and kind != "parquet" and not url.endswith(".parquet"):
            return InputFile(url, name, *_ends(url), seen=seen, raw="tar", pictures=url)
        looked = _look_at_table(url, name, recipe, kind)
        if looked.fault or dataset.kind != "tar":
            return replace(looked, seen=seen)
        tar = f"{url.removesuffix('.parquet')}.tar"
        size, ends = _ends(tar) if filesystem.exists(path.removesuffix(".parquet") + ".tar") else (0, "")
        both = hashlib.sha256(f"{looked.footer} {ends}".encode()).hexdigest()
        return replace(looked, seen=seen, bytes=looked.bytes + size, footer=both, pictures=tar)
    except OSError as error:
        return InputFile(url, name, 0, "", fault=f"cannot be opened: {_first_line(str(error)) or type(error).__name__}")


def _look_at_text(file: InputFile, recipe: Recipe) -> InputFile:
    """Read the head of a table in text. Raises OSError, and RecipeError for one without URLs."""
    mapping = input_columns(recipe)
    try:
        columns = look(file.url, mapping).columns
    except BrokenInput as error:
        return replace(file, raw="", fault=_first_line(error.cause))
    if "image_path" in columns and mapping["url"] not in columns:
        raise RecipeError(
            f"input: {file.name} is lines of JSON; input.dataset = {recipe.input.dataset!r} wants a Parquet table; data"
            f" sets of that kind: {readers_of('jsonl')}; lines of JSON are a table where they have {mapping['url']!r}"
        )
    fault = _check_columns(file.name, columns, mapping)
    return replace(file, raw="" if fault else file.raw, fault=fault, columns=tuple(sorted({*columns})))


def _check_columns(name: str, columns: Sequence[str], mapping: Mapping[str, str]) -> str:
    """Return why a table cannot be read by its columns, or nothing. Raises RecipeError for one without URLs."""
    twice = sorted(column for column in {*mapping.values()} if columns.count(column) > 1)
    if twice:
        return f"column {twice[0]!r} stands in it twice"
    if mapping["url"] not in columns:
        raise RecipeError(
            f"input: {name} has no column {mapping['url']!r} for the URLs; its columns are"
            f' {", ".join(sorted({*columns}))}; say which one holds them: [input.columns] url = "…"'
        )
    return ""


def _look_at_table(url: str, name: str, recipe: Recipe, kind: str) -> InputFile:
    """Read a table's footer. Raises OSError, and RecipeError for one without URLs."""
    with open_input(url) as file:
        size, footer_sha256 = _footer(file)
        file.seek(0)
        try:
            footer, names = read_footer(file, url)
        except BrokenInput as error:
            is_other = kind not in ("parquet", "empty") and not (kind == "?" and url.endswith(".parquet"))
            hint = f" ({SAYS[kind]}; {READABLE})" if is_other else ""
            fault = f"not a readable Parquet file: {_first_line(error.cause)}{hint}"
            return InputFile(url, name, size, footer_sha256, fault=fault)
    mapping = input_columns(recipe)
    if fault := _check_columns(name, names, mapping):
        return InputFile(url, name, size, footer_sha256, fault=fault)
    columns = set(names)
    unread = _unread(footer.schema.to_arrow_schema(), mapping)
    return InputFile(url, name, size, footer_sha256, rows_of_groups(footer), tuple(sorted(columns)), unread=unread)


def _unread(schema: pa.Schema, mapping: Mapping[str, str]) -> tuple[str, ...]:
    """Return the wanted columns that have a type which cannot be read, with that type."""
    types = {theirs: schema.field(theirs).type for theirs in mapping.values() if theirs in schema.names}
    faulty = {
        f"{theirs} ({types[theirs]})"
        for ours, theirs in mapping.items()
        if theirs in types and not is_readable(types[theirs], COLUMNS[ours].type)
    }
    return tuple(sorted(faulty))


def look_at_made(file: InputFile, root: Path, table: Path) -> InputFile:
    """Return a raw file with the table that was made of it. Raises OSError, and BrokenInput for a damaged table."""
    record = FileRecord.of(root, table)
    with open_input(str(table)) as opened:
        footer, names = read_footer(opened, str(table))
    made = (record.path, record.sha256, record.bytes)
    groups, columns = rows_of_groups(footer), tuple(sorted(names))
    return replace(file, url=str(table.absolute()), raw="", groups=groups, columns=columns, made=made)


def data_folder(recipe: Recipe) -> str:
    """Return the folder, as a URL, that holds the data set: `input.images`, else the part of `files` before any
    wildcard."""
    if recipe.input.images is not None:
        filesystem, path = located(recipe.input.images)
        return str(filesystem.unstrip_protocol(path.rstrip("/") or "/"))
    patterns = [recipe.input.files] if isinstance(recipe.input.files, str) else recipe.input.files
    folders = []
    for pattern in patterns:
        filesystem, path = located(pattern)
        fixed = path if filesystem.isdir(path) else literal_folder(filesystem, path)
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


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:200]


def kind_of(head: bytes) -> str:
    """Return what a file is, from its first 512 bytes: a key of SAYS."""
    if not head:
        return "empty"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[257:262] == b"ustar" or _old_tar(head):
        return "tar"
    for mark, kind in MARKS.items():
        if head.startswith(mark):
            return kind
    if coding := coding_of(head):
        head = head.decode(coding, "ignore").encode()
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return "jsonl"
    if head.lstrip().startswith(b"[") and _is_text(head):
        return "array"
    return "text" if _is_text(head) else "?"


def _old_tar(head: bytes) -> bool:
    """Tell a tar header without a mark by its checksum."""
    if len(head) < 512:
        return False
    try:
        wanted = int(head[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return sum(head[:148]) + sum(head[156:512]) + 8 * 32 == wanted


def _is_text(head: bytes) -> bool:
    try:
        text = head[:-3].decode()
        return text.isprintable() or ("\n" in text and is_text(text))
    except UnicodeDecodeError:
        return False


def readers_of(kind: str) -> str:
    """Return the data sets that read files of this kind, for errors."""
    return ", ".join(name for name, dataset in DATASETS.items() if dataset.kind == kind and not name.startswith("demo"))
