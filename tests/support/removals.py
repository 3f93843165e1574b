"""Remove rows from a run, stop half-way, run its stages again, and look at what is left of the rows and became of
them."""

import os

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from manifests.manifest import Manifest
from manifests.shards import read_shard
from manifests.uid import uid_of
from manifests.verify import verify_run
from pipeline.cli import app
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Runtime
from pipeline.maintenance.remove.run import remove_rows
from pipeline.maintenance.remove.selectors import gather
from pipeline.maintenance.repair.run import STAGE_STEPS
from pipeline.maintenance.verify_removed import with_absence
from pipeline.stages.run import StageOptions, run_stage
from tests.support.keep_runs import files_of, without_beam

URL = "http://pictures.test/{}.jpg"
TWIN = uid_of("http://pictures.test/twin.jpg", "picture number three again")
"""The uid of the row whose picture is that of row 3 in another quality."""


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

    monkeypatch.setattr("manifests.store.os.replace", stop)
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


def rerun(root, *stages, recipe=None):
    """Run stages (none: all) in this process, with the run's own recipe unless another is given."""
    with without_beam():
        return [run_stage(recipe or recipe_of_run(root), stage, StageOptions()) for stage in stages or STAGE_STEPS]


def uid(number):
    """Return the uid of the row whose URL and text have this number."""
    return uid_of(URL.format(number), f"picture number {number}")


def final(root):
    """Return the final ledger."""
    return pa.concat_tables(pq.read_table(path) for path in sorted((root / "ledger" / "final").glob("*.parquet")))


def fate(root, name):
    """Return (fate, reason) of each row with this uid."""
    rows = final(root).filter(pc.equal(final(root)["uid"], pa.scalar(name, pa.binary(16)))).to_pylist()
    return [(row["fate"], row["reason"]) for row in rows]


def digests(root):
    """Return stage -> digest of its manifest."""
    return {stage: Manifest.read(root / "manifests" / f"{stage}.json").digest for stage in STAGE_STEPS}


def pair_of(root, name):
    """Return the row of the pairs with this uid."""
    tables = [pq.read_table(path) for path in sorted((root / "pairs").glob("*.parquet"))]
    return next(row for table in tables for row in table.to_pylist() if row["key"] == name.hex())


def picture_of(root, name):
    """Return the row of the scores with this uid."""
    table = pa.concat_tables(pq.read_table(path) for path in sorted((root / "scores").glob("*.parquet")))
    return table.filter(pc.equal(table["uid"], pa.scalar(name, pa.binary(16)))).to_pylist()[0]
