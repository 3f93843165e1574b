"""Lost files and records of derived steps are missed, and are leftovers while they are made."""

import pytest

from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.layout import SCRATCH
from manifests.records import read_records
from manifests.verify import verify_run
from manifests.verify_derived import unrecorded

FILE, RECORD = "ledger/first/00000.parquet", "manifests/journal/first/00000.json"


@pytest.fixture
def root(tmp_path):
    """Return a run folder that holds a derived file and its record."""
    (tmp_path / "ledger" / "first").mkdir(parents=True)
    (tmp_path / FILE).write_text("rows")
    Journal(tmp_path, "first").record(ShardRecord("00000", "k", (FileRecord.of(tmp_path, tmp_path / FILE),), 1, 1))
    return tmp_path


def findings(root):
    return {finding.path: finding.kind for finding in verify_run(root, {}).findings}


def test_what_derived_steps_made_is_the_runs(root):
    assert findings(root) == {}
    (root / FILE).write_text("rowz")
    assert findings(root) == {FILE: "damaged"}
    (root / FILE).unlink()
    assert findings(root) == {FILE: "missing"}


def test_a_lost_record_is_missed(root):
    (root / RECORD).unlink()
    assert findings(root) == {FILE: "unproved", RECORD: "missing"}


def test_while_a_plan_is_made_nothing_is_missed(root):
    (root / SCRATCH).mkdir()
    (root / RECORD).unlink()
    assert findings(root) == {SCRATCH: "leftover", FILE: "leftover"}
    assert unrecorded(read_records(root, {}), "first", "00000")[0] == "leftover"
