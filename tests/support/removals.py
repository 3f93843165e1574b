"""Remove rows from a run, look for what is left of them, and stop half-way."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from manifests.shards import read_shard
from manifests.verify import verify_run
from pipeline.cli import app
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Runtime
from pipeline.maintenance.remove.run import remove_rows
from pipeline.maintenance.remove.selectors import gather
from pipeline.maintenance.repair.run import STAGE_STEPS
from pipeline.maintenance.verify_removed import with_absence
from tests.support.keep_runs import files_of

URL = "http://pictures.test/{}.jpg"


def remove(root, promote=False, lists=(), **kinds):
    selectors = gather({kind: [value] if isinstance(value, str) else value for kind, value in kinds.items()}, lists)
    return remove_rows(root, recipe_of_run(root), Runtime(), selectors, promote)


def interrupted(root, monkeypatch, after, counted=""):
    """Stop a removal of two URLs as it puts one file more than `after` in another's place; `counted`: only of sources
    with this name."""
    real, done = os.replace, []

    def stop(source, target):
        done.append(source) if counted in str(source) else None
        if len(done) > after:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("manifests.transaction.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        remove(root, url=[URL.format(5), URL.format(3)])
    monkeypatch.undo()


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files_of(root)}


def holding(root, uids, urls):
    """Return the files that hold a uid or URL: decoded columns, members, raw bytes, whatever the file."""
    found = set()
    needles = [n for one in uids for n in (one, one.hex().encode())] + [url.encode() for url in urls]
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        data = [path.read_bytes()]
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            data += [
                str(table.to_pylist()).encode(),
                *(v for c in table.columns if pa.types.is_fixed_size_binary(c.type) for v in c.to_pylist() if v),
            ]
        if path.suffix == ".tar":
            data += [key.encode() + b"".join(sample.values()) for key, sample in read_shard(path)]
        if any(needle in piece for piece in data for needle in needles):
            found.add(name)
    return found


def whole(root):
    report = with_absence(root, verify_run(root, STAGE_STEPS))
    return [finding for finding in report.findings if finding.wrong]


def command(*args):
    return CliRunner().invoke(app, ["remove", *map(str, args)])
