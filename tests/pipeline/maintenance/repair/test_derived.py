"""What derived steps made is made again: files to the bytes that their records name, records of what the run holds."""

import pytest

from manifests.journal import records_of
from manifests.tables import SELECTED
from pipeline.execution.step import Runtime
from pipeline.maintenance.repair.derived import mend_derived
from pipeline.steps.fetch.step import Fetch
from tests.support.journals import spread
from tests.support.records import put_table, uid
from tests.support.repairs import repair_of
from tests.support.selected import add_files

TABLE, RECORD = "ledger/first/00000.parquet", "manifests/journal/first/00000.json"


@pytest.fixture
def run(tmp_path):
    """Return a run folder whose fetch is planned: three rows, of which the last is a twin of the first."""
    root = tmp_path / "run"
    add_files(root, "00000")
    select(root, 1, 2, 1)
    fetch(repair_of(root).recipe, root).plan()
    spread(root, "first")
    (tmp_path / "copy").rename(tmp_path / "before")
    return root


def select(root, *numbers):
    rows = [
        {"uid": uid(n), "source": "00000", "source_row": row, "url": f"http://x.test/{n}"}
        for row, n in enumerate(numbers)
    ]
    put_table(root, "select", "ledger/select/00000.parquet", rows, SELECTED)


def fetch(recipe, root):
    return Fetch(recipe, root, Runtime())


@pytest.mark.parametrize("names", [(TABLE,), (RECORD,), (RECORD, TABLE)])
def test_what_is_damaged_comes_back_byte_for_byte(run, names):
    before = {name: (run / name).read_bytes() for name in names}
    for name in names:
        (run / name).write_bytes(b"damaged")
    work = repair_of(run, *names, step="first")
    mend_derived(work, fetch(work.recipe, work.copy))
    assert work.left == {}
    assert {name: (run / name).read_bytes() for name in names} == before


def test_what_was_made_from_other_rows_is_left(run):
    """The ledger has gone on, and the table that its record names comes out of it no more."""
    select(run, 1, 2, 3)
    (run / TABLE).write_bytes(b"damaged")
    work = repair_of(run, TABLE, step="first")
    mend_derived(work, fetch(work.recipe, work.copy))
    assert work.repaired == {}
    assert "the run has gone on since" in work.left[TABLE]


def test_without_its_ledger_nothing_is_made(run):
    (run / "ledger/select/00000.parquet").unlink()
    (run / TABLE).unlink()
    work = repair_of(run, TABLE, step="first")
    mend_derived(work, fetch(work.recipe, work.copy))
    assert "cannot be read" in work.left[TABLE]
    assert len(records_of(run, "first")) == 1
