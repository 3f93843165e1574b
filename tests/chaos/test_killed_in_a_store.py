"""A process that keeps a run in a store whole dies between any two operations of the store: the next holder ends it."""

import pyarrow as pa
import pytest

from manifests.aside import ASIDE, Group
from manifests.files import write_table
from manifests.journal import FileRecord
from manifests.store_requests import StoreError
from manifests.transaction import ASKED, NOTES, PENDING
from pipeline.execution.run_folder import locked
from pipeline.maintenance.prune import prune, set_aside_in
from tests.support.dying_store import every_state, failing_at, restore, state
from tests.support.keep_runs import mend
from tests.support.object_store import in_memory, put_run
from tests.support.removals import URL, digests, remove, whole

URLS = [URL.format(5), URL.format(3)]


@pytest.fixture
def root(made):
    return put_run(made, in_memory())


@pytest.fixture(autouse=True)
def dead_owners(monkeypatch):
    """Let every process be gone that held a run."""
    monkeypatch.setattr("pipeline.execution.lease.is_gone", lambda _: True)


def taken(root):
    """Return what a run holds once the next holder has it."""
    with locked(root, removing=True):
        pass
    return state(root)


def test_a_removal_that_dies_at_any_operation_is_ended_or_begins_anew(root, removed_two):
    before = state(root)
    with every_state(root) as states:
        remove(root, url=URLS)
    after = state(root)
    assert after == state_of_disk(removed_two)
    assert len(states) > 300
    noted, again = 0, []
    for number, one in enumerate(states):
        restore(root, one)
        found = taken(root)
        asked = found.pop(ASKED, None)
        if any(f"{PENDING}/{note}" in one for note in NOTES):
            noted += 1
            assert (found, asked) == (after, None), number
        elif found == after:
            again += [number] if asked else []
        else:
            assert found == before, number
            again += [number] if asked and number % 60 == 0 else []
    assert noted > 100
    for number in again:
        restore(root, states[number])
        remove(root, url=URLS)
        assert state(root) == after, number
    assert whole(root) == []
    assert digests(root) == digests(removed_two)


def state_of_disk(run):
    paths = [path for path in run.rglob("*") if path.is_file() and path.name not in (".lock", ".run-token")]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("number", [40, 235, 260, 330, 360])
def test_a_removal_that_the_store_stops_is_ended_or_begins_anew(root, removed_two, number):
    before = state(root)
    with failing_at(number) as done, pytest.raises(StoreError):
        remove(root, url=URLS)
    assert len(done) >= number
    found = taken(root)
    found.pop(ASKED, None)
    assert found in (before, state_of_disk(removed_two))
    remove(root, url=URLS)
    assert state(root) == state_of_disk(removed_two)


def test_a_repair_that_dies_at_any_operation_leaves_the_run_as_it_was_or_better(root, web):
    good = state(root)
    (root / "scores" / "00000.parquet").write_bytes(b"junk")
    (root / "manifests" / "filter.json").unlink()
    (root / "codes" / "pretrain" / "00000.tar").write_bytes(good["codes/pretrain/00000.tar"][:1000])
    bad = state(root)
    with every_state(root) as states:
        done = mend(root)
    assert done is not None
    assert done.left == {}
    assert state(root) == good
    seen = {}
    for number, one in enumerate(states):
        run = {name: data for name, data in one.items() if not name.startswith(".tmp-repair-")}
        assert all(data in (good[name], bad.get(name)) for name, data in run.items()), number
        seen.setdefault(tuple(sorted(name for name in good if run.get(name) != good[name])), number)
    assert len(seen) == 4
    for wrong, number in seen.items():
        restore(root, states[number])
        again = mend(root)
        assert (again is None) == (not wrong)
        assert state(root) == good
    assert whole(root) == []


def test_a_prune_that_dies_at_any_operation_is_ended_by_the_same_command(root):
    bare = state(root)
    for name in ("abc", "def"):
        path = root / ASIDE / "caption" / f"{name}-captions.parquet"
        write_table(path, pa.table({"uid": pa.array([], pa.binary(16))}))
        Group(path.parent, name, "caption", "m", 0, path.name, (FileRecord.of(path.parent, path),)).write()
    assert whole(root) == []
    with every_state(root) as states:
        prune(root, [])
    assert state(root) == bare
    for one in states:
        restore(root, one)
        assert whole(root) == []
        if set_aside_in(root):
            prune(root, [])
        assert state(root) == bare
