"""Tables on their way between units, as Arrow files that are mapped."""

from pathlib import Path

import pyarrow as pa

from manifests.files import parsing, writing
from manifests.store import is_remote


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write a table by temporary name and rename."""
    with (
        writing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)


def read_arrow(path: Path) -> pa.Table:
    """Map a table, on a disk. Raises FormatError for another file, OSError."""
    with parsing(path, "not an Arrow file"), _opened(path) as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()


def _opened(path: Path) -> pa.NativeFile:
    return pa.BufferReader(path.read_bytes()) if is_remote(path) else pa.memory_map(str(path))
