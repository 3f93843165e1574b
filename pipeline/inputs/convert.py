"""Make a Parquet table of an input that is none (text, JSON lines, tars without their table), once, inside the run
folder."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.files import FORMAT, digest_of, writing
from manifests.tombstones import read_tombstones
from pipeline.inputs.errors import BrokenInput
from pipeline.inputs.files import InputFile, look_at_made
from pipeline.inputs.jsonl import FAULT, FAULT_COLUMN, Folder, filled_lines, read_line, table_of
from pipeline.inputs.parquet import is_local, located
from pipeline.inputs.redact_table import blank_rows
from pipeline.inputs.samples import Apart, sample_rows
from pipeline.inputs.text_tables import SCHEMALESS, UNPACKING, look, tables, unpacked
from pipeline.recipes.rules import input_columns
from pipeline.recipes.schema import Recipe, RecipeError

VERSION = 1
"""It names the tables made here. One that a run folder has stays: its run was made from it."""
GROUP_ROWS = 65_536
HASH = "hash"
"""LAION's column of 64-bit hashes, which lists of exclusion name."""


def with_tables(recipe: Recipe, files: list[InputFile]) -> list[InputFile]:
    """Return the input's files, each raw one with a table in `manifests/input/` that says what it holds, a row group in
    memory.

    A table is named by what it is made of and made once. Raises RecipeError where all pictures of a file lie outside
    the data set.
    """
    return [_with_table(recipe, file) if file.raw else file for file in files]


def _with_table(recipe: Recipe, file: InputFile) -> InputFile:
    mapping = input_columns(recipe)
    root = located(file.pictures)[1] if file.raw == "jsonl" else ""
    place = ["text"] if file.raw == "text" else [file.url, root]
    name = digest_of([VERSION, file.name, file.footer, file.bytes, mapping, *place])[:32]
    path = recipe.root / "manifests" / "input" / f"{name}.parquet"
    try:
        if not path.exists():
            if file.raw == "text":
                _write_text(path, file, mapping)
            elif file.raw == "jsonl":
                _write(path, _line_rows(file, root, mapping), mapping)
            else:
                _write_samples(path, file, mapping)
            if tombstones := read_tombstones(recipe.root):
                blank_rows(path, file.name, mapping, tombstones)
    except BrokenInput as error:
        what = "not a readable tar: " if file.raw == "tar" else ""
        return replace(file, raw="", columns=(), fault=f"{what}{error.cause}"[:200])
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:  # taken away since it was looked at
        return replace(file, raw="", columns=(), fault=f"cannot be opened: {error}"[:200])
    return look_at_made(file, recipe.root, path)


def _write(path: Path, rows: Iterator[dict[str, Any]], mapping: Mapping[str, str]) -> None:
    with writing(path) as temporary:
        table = table_of(list(islice(rows, GROUP_ROWS)), mapping, ("key",))
        schema = table.schema.with_metadata({"tessera_format": str(FORMAT)})
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            while table.num_rows:
                writer.write_table(table.cast(schema), row_group_size=GROUP_ROWS)
                table = table_of(list(islice(rows, GROUP_ROWS)), mapping, ("key",))


def _write_text(path: Path, file: InputFile, mapping: Mapping[str, str]) -> None:
    """Write a table of what a table in text says, as it is written there: types are brought to ours when it is read."""
    table = look(file.url, mapping)
    wanted = [*dict.fromkeys((mapping["url"], *mapping.values())), HASH]
    names = [name for name in wanted if name in table.columns or (table.format in SCHEMALESS and name != HASH)]
    schema = pa.schema([(name, pa.string()) for name in (*names, FAULT_COLUMN)], {"tessera_format": str(FORMAT)})
    with writing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for columns, faults in tables(table, names, GROUP_ROWS):
            writer.write_table(pa.table([*columns, faults], schema=schema), row_group_size=GROUP_ROWS)


def _write_samples(path: Path, file: InputFile, mapping: Mapping[str, str]) -> None:
    """Write a tar's table; where members of one sample stand apart it is read again, by key."""
    try:
        _write(path, sample_rows(file.url, file.name, mapping), mapping)
    except Apart:
        _write(path, sample_rows(file.url, file.name, mapping, by_key=True), mapping)


def _line_rows(file: InputFile, root: str, mapping: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    path = located(file.url)[1]
    start = path.rpartition("/")[0] if path.startswith(f"{root.rstrip('/')}/") else root
    folder = Folder(start, root, os.path.realpath(root) if is_local(file.pictures) else "")
    with unpacked(file.url) as raw:
        rows = (read_line(line, folder, mapping) for line in _whole_lines(raw))
        head = list(islice(rows, GROUP_ROWS))
        _check_folder(file, head, root)
        yield from head
        yield from rows


def _whole_lines(raw: Any) -> Iterator[bytes | None]:
    """Yield lines that hold something, and None where a packed file ends early: what came before is good."""
    try:
        yield from filled_lines(raw)
    except UNPACKING as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        yield None


def _check_folder(file: InputFile, rows: list[dict[str, Any]], root: str) -> None:
    """Raise RecipeError when every path is absolute and leads elsewhere: the recipe does not say where the pictures
    are."""
    paths = [row for row in rows if row[FAULT] != "broken_line"]
    outside = [row for row in paths if row[FAULT] == "blocked_path" and os.path.isabs(row["url"])]
    if outside and len(outside) == len(paths):
        raise RecipeError(
            f"input: every picture of {file.name} lies outside {root}, the first is {outside[0]['url']!r};"
            ' say which folder holds them: [input] images = "…"'
        )
