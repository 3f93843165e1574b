"""Find the input's Parquet files and name them by content, so that a run folder belongs to one input."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.files import FormatError, read_json, write_json
from pipeline.recipe import Recipe, RecipeError
from pipeline.rules import input_columns

LEDGER = "input.json"
UNREADABLE = (pa.ArrowException, ValueError, NotImplementedError, OSError, EOFError)
"""What pyarrow raises for a damaged Parquet file, names that are not UTF-8 included."""


@dataclass(frozen=True)
class InputFile:
    """One input file: `name` without its folder, `groups` = rows of each row group; `fault` where it cannot be opened."""

    url: str
    name: str
    bytes: int
    sha256: str
    groups: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()
    fault: str = ""

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Return the wanted columns that a readable file does not have."""
        return [] if self.fault else [name for name in wanted if name not in self.columns]

    @property
    def rows(self) -> int:
        """Return the number of rows that the footer promises."""
        return sum(self.groups)

    def record(self) -> dict[str, Any]:
        """Return the manifest entry: what the file holds, not where it lies."""
        return {"name": self.name, "bytes": self.bytes, "sha256": self.sha256, "rows": self.rows}


def find_files(recipe: Recipe) -> list[str]:
    """Return the input's files as URLs, sorted. Raises RecipeError when there are none."""
    patterns = [recipe.input.files] if isinstance(recipe.input.files, str) else recipe.input.files
    found: set[str] = set()
    for pattern in patterns:
        filesystem, path = fsspec.url_to_fs(pattern)
        if filesystem.isdir(path):
            path = f"{path.rstrip('/')}/*.parquet"
        found.update(filesystem.unstrip_protocol(match) for match in filesystem.glob(path) if not filesystem.isdir(match))
    if not found:
        raise RecipeError(f"input.files: no file matches {', '.join(map(repr, patterns))}; give Parquet files, a folder or a glob")
    return sorted(found)


def open_input(url: str) -> Any:
    """Open one input file for reading, local or remote, as a binary file with random access."""
    filesystem, path = fsspec.url_to_fs(url)
    return filesystem.open(path, "rb")


def look_at_inputs(recipe: Recipe) -> list[InputFile]:
    """Open every footer once; a file that cannot be opened keeps its `fault`.

    Raises RecipeError when a readable file has no column for the URLs: that is the recipe's mapping, not a data fault.
    """
    urls = find_files(recipe)
    names = _short_names(urls)
    files = [_look(url, name, recipe) for url, name in zip(urls, names, strict=True)]
    return files


def _short_names(urls: list[str]) -> list[str]:
    """Return names relative to the deepest folder that all files share."""
    paths = [PurePosixPath(url.split("://", 1)[-1]) for url in urls]
    shared = paths[0].parent
    while not all(path.is_relative_to(shared) for path in paths):
        shared = shared.parent
    return [path.relative_to(shared).as_posix() for path in paths]


def _look(url: str, name: str, recipe: Recipe) -> InputFile:
    try:
        with open_input(url) as file:
            size, sha256 = _measure(file)
            try:
                file.seek(0)
                footer = pq.ParquetFile(file).metadata
                names = footer.schema.to_arrow_schema().names
            except UNREADABLE as error:
                return InputFile(url, name, size, sha256, fault=f"not a readable Parquet file: {_first_line(error)}")
    except OSError as error:
        return InputFile(url, name, 0, "", fault=f"cannot be opened: {_first_line(error)}")
    columns, wanted = set(names), input_columns(recipe)["url"]
    twice = sorted(column for column in {*input_columns(recipe).values()} if names.count(column) > 1)
    if twice:
        return InputFile(url, name, size, sha256, fault=f"column {twice[0]!r} stands in it twice")
    if wanted not in columns:
        raise RecipeError(
            f"input: {name} has no column {wanted!r} for the URLs; its columns are {', '.join(sorted(columns))};"
            ' say which one holds them: [input.columns] url = "…"'
        )
    groups = tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups))
    return InputFile(url, name, size, sha256, groups, tuple(sorted(columns)))


def _measure(file: Any) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while block := file.read(1 << 20):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def claim(root: Path, files: list[InputFile]) -> None:
    """Tie the run folder to this input, or raise RecipeError if it was made from another one.

    Files may be added; a file that was there before must be there unchanged, unless it could not be read.
    """
    path = root / "manifests" / LEDGER
    now = {file.name: file for file in files}
    try:
        before = read_json(path)["files"]
    except (OSError, FormatError, KeyError):
        before = []
    for entry in before:
        same = now.get(entry["name"])
        if entry["fault"] or (same and same.sha256 == entry["sha256"]):
            continue
        what = "is not among the files now" if same is None else "has other content now"
        raise RecipeError(f"{root}: made from another input: {entry['name']} {what}; use another output.root (--out DIR) for another input")
    write_json(path, {"files": [asdict(file) for file in files]}, sealed=True)


def claimed(root: Path) -> list[InputFile]:
    """Return the files that the run folder belongs to."""
    entries = read_json(root / "manifests" / LEDGER)["files"]
    return [InputFile(**{**entry, "groups": tuple(entry["groups"]), "columns": tuple(entry["columns"])}) for entry in entries]
