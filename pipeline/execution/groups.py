"""Copy rows of groups that were set aside into a group of their own: tables and tars, a row group or a sample at a
time."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.aside import Group
from manifests.files import digest_of, open_table, writing
from manifests.journal import FileRecord
from manifests.shards import Sample, read_shard, write_shard
from pipeline.execution.redaction import RemovedRows, written_schema

Parts = Sequence[tuple[Group, frozenset[bytes]]]
"""Groups of one step that were made alike, and the uids of their rows that are taken."""
Sources = Sequence[tuple[Path, frozenset[bytes]]]
"""Files, and the uids of their rows that are taken."""


def put_together(folder: Path, parts: Parts) -> Group:
    """Copy these rows into one group in `folder`, which counts once all of its files are whole; return it.

    No uid stands in two parts. The bytes, and the name, depend on the rows alone.
    """
    told = [[group.name, hashlib.sha256(b"".join(sorted(uids))).hexdigest()] for group, uids in parts]
    name, first = digest_of(told)[:24], parts[0][0]
    endings = dict.fromkeys(file.path.removeprefix(group.name) for group, _ in parts for file in group.files)
    for ending in endings:
        sources = [
            (group.folder / f"{group.name}{ending}", uids)
            for group, uids in parts
            if any(file.path == f"{group.name}{ending}" for file in group.files)
        ]
        (copy_samples if ending.endswith(".tar") else copy_rows)(folder / f"{name}{ending}", sources)
    files = tuple(FileRecord.of(folder, folder / f"{name}{ending}") for ending in endings)
    rows, table = sum(len(uids) for _, uids in parts), f"{name}{first.table.removeprefix(first.name)}"
    made = Group(folder, name, first.step, first.made_by, rows, table, files)
    made.write()
    return made


def copy_samples(path: Path, sources: Sequence[tuple[Path, frozenset[bytes]]]) -> None:
    """Write the samples of these uids, all of their members, into one tar."""

    def samples() -> Iterator[tuple[str, Sample]]:
        for source, uids in sources:
            keys = {uid.hex() for uid in uids}
            yield from ((key, sample) for key, sample in read_shard(source) if key in keys)

    write_shard(path, samples())


def copy_rows(path: Path, sources: Sequence[tuple[Path, frozenset[bytes]]]) -> None:
    """Write the rows of these uids into one table, a row group at a time; a column that a table lacks is null."""
    schemas = []
    for source, _ in sources:
        with open_table(source) as file:
            schemas.append(written_schema(file))
    schema = pa.unify_schemas([one.remove_metadata() for one in schemas]).with_metadata(schemas[0].metadata)
    with writing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for source, uids in sources:
            removed = RemovedRows(uids)
            with open_table(source) as file:
                for number in range(file.num_row_groups):
                    table = file.read_row_group(number)
                    table = table.filter(removed.rows(table))
                    if table.num_rows:
                        writer.write_table(_conform(table, schema))


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table[field.name].cast(field.type) if field.name in table.schema.names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema).combine_chunks()
