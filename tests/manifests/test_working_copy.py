"""A working copy is links: what is written there leaves the run as it was until it is moved over."""

import os

import pytest

from manifests.files import write_bytes
from manifests.publishing import RunOver, published_if
from manifests.store import mapped, scratch_of
from manifests.transaction import ASKED, NOTES, changes, commit, finish
from manifests.working_copy import (
    lead_to,
    link,
    links_in_the_way,
    move_over,
    sweep_copies,
    whole_copy,
    working_copy,
)
from tests.support.object_store import in_memory, put_run


@pytest.fixture
def root(tmp_path):
    for name in (
        "recipe.toml",
        "pairs/a",
        "pairs/b",
        "logs/x",
        "train/y",
        ".earlier/z",
        ".shuffle/first/0.slices",
        "pairs/logs/c",
        ".lock",
        ASKED,
    ):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "run" / "pairs" / ".tmp-left").write_text("")
    return tmp_path / "run"


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_it_holds_links_to_all_but_logs_training_locks_and_what_is_left_out(root):
    with working_copy(root, ["pairs/b"]) as copy:
        assert copy.parent == root
        assert copy.name.startswith(".tmp-repair-")
        assert files(copy) == ["pairs/a", "pairs/logs/c", "recipe.toml"]
        assert (copy / "pairs" / "a").samefile(root / "pairs" / "a")
    assert not copy.exists()
    assert (root / "pairs" / "a").read_text() == "pairs/a"


def test_a_folder_can_be_left_out(root):
    with working_copy(root, {"pairs/logs"}) as copy:
        assert files(copy) == ["pairs/a", "pairs/b", "recipe.toml"]


def test_it_goes_when_its_block_fails(root):
    with pytest.raises(KeyError), working_copy(root, ()) as copy:
        raise KeyError
    assert not copy.exists()


def test_a_renamed_file_leaves_the_run_as_it_was_until_it_is_moved_over(root):
    with working_copy(root, ()) as copy:
        (copy / "new").write_text("changed")
        (copy / "new").replace(copy / "pairs" / "a")
        assert (root / "pairs" / "a").read_text() == "pairs/a"
        move_over(copy, root, "pairs/a")
        (copy / "codes").mkdir()
        (copy / "codes" / "x").write_text("made")
        move_over(copy, root, "codes/x")
        assert (copy / "pairs" / "a").read_text() == "changed"
    assert (root / "pairs" / "a").read_text() == "changed"
    assert (root / "codes" / "x").read_text() == "made"
    assert [name for name in files(root) if ".tmp-repair" in name] == []


def test_what_a_link_leads_to_is_replaced_and_not_the_link(root, tmp_path):
    (tmp_path / "else").write_text("old")
    (root / "pairs" / "away").symlink_to(tmp_path / "else")
    (root / "pairs" / "nowhere").symlink_to(tmp_path / "none")
    (tmp_path / "copy" / "pairs").mkdir(parents=True)
    for name in ("away", "nowhere"):
        (tmp_path / "copy" / "pairs" / name).write_text("new")
        move_over(tmp_path / "copy", root, f"pairs/{name}")
    assert (root / "pairs" / "away").is_symlink()
    assert (tmp_path / "else").read_text() == "new"
    assert not (root / "pairs" / "nowhere").is_symlink()
    assert (root / "pairs" / "nowhere").read_text() == "new"


def test_a_link_takes_the_place_of_what_was_there(tmp_path):
    for name in ("source", "old"):
        (tmp_path / name).write_text(name)
    (tmp_path / "way").symlink_to(tmp_path / "source")
    link(tmp_path / "way", tmp_path / "old")
    link(tmp_path / "way", tmp_path / "deep" / "new")
    for path in (tmp_path / "old", tmp_path / "deep" / "new"):
        assert path.samefile(tmp_path / "source")
        assert not path.is_symlink()


def test_links_to_files_are_in_the_way_but_those_of_training(root, tmp_path):
    assert links_in_the_way(root) == []
    (tmp_path / "else").mkdir()
    (root / "folder").symlink_to(tmp_path / "else")
    (root / "train" / "away").symlink_to(root / "recipe.toml")
    (root / "pairs" / "away").symlink_to(root / "recipe.toml")
    assert links_in_the_way(root) == [f"{root}/pairs/away is a link to {root}/recipe.toml"]


def test_no_link_of_records_is_followed_and_none_to_what_is_no_plain_file(root, tmp_path):
    (tmp_path / "copy" / "manifests").mkdir(parents=True)
    (tmp_path / "copy" / "pairs").mkdir()
    (root / "manifests").mkdir(exist_ok=True)
    (tmp_path / "thesis").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for name, leads_to in (("manifests/a", "thesis"), ("pairs/p", "pipe")):
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(tmp_path / leads_to)
        (tmp_path / "copy" / name).write_text("made")
        move_over(tmp_path / "copy", root, name)
        assert not (root / name).is_symlink()
        assert (root / name).read_text() == "made"
    assert (tmp_path / "thesis").read_text() == "mine"
    assert (tmp_path / "pipe").is_fifo()


@pytest.fixture
def stored(root):
    """Return the same run in a store."""
    return put_run(root, in_memory())


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_of_a_run_in_a_store_it_is_a_layer_that_leaves_out_the_same(stored):
    before = names(stored)
    with working_copy(stored, ["pairs/b"]) as copy:
        assert names(copy) == ["pairs/a", "pairs/logs/c", "recipe.toml"]
        write_bytes(copy / "pairs" / "a", b"changed")
        write_bytes(copy / "logs" / "y", b"made")
        assert (stored / "pairs" / "a").read_text() == "pairs/a"
        move_over(copy, stored, "pairs/a")
        lead_to(stored, copy, "pairs/b")
        lead_to(stored, copy, "pairs/a")
        assert [(copy / "pairs" / name).read_text() for name in "ab"] == ["changed", "pairs/b"]
        scratch = scratch_of(copy)
        scratch.mkdir(parents=True)
    assert names(stored) == before
    assert (stored / "pairs" / "a").read_text() == "changed"
    assert not scratch.exists()
    with pytest.raises(KeyError), working_copy(stored, ()):
        raise KeyError
    assert names(stored) == before


def test_what_a_killed_repair_left_in_a_store_is_swept(stored):
    before = names(stored)
    write_bytes(stored / ".tmp-repair-1-ab" / "new" / "pairs" / "a", b"half")
    sweep_copies(stored)
    assert names(stored) == before


@pytest.mark.parametrize("kind", ["disk", "store"])
def test_a_whole_copy_has_what_rows_may_stand_in_and_is_committed_at_once(root, stored, kind):
    run = root if kind == "disk" else stored
    with whole_copy(run) as (copy, there):
        assert files(copy) == [".earlier/z", "logs/x", "pairs/a", "pairs/b", "pairs/logs/c", "recipe.toml"]
        write_bytes(copy / "pairs" / "a", b"changed")
        write_bytes(copy / "pairs" / "b", b"pairs/b")
        (copy / "logs" / "x").unlink()
        found = changes(run, copy, there)
        assert (found.put, found.drop) == (("pairs/a",), ("logs/x",))
        kept = mapped(run / "pairs" / "a")
        assert kept.read_bytes() == b"pairs/a"
        commit(run, copy, found)
        assert kept.exists() == (run == root)  # no copy of what went stays on this machine
    assert list((run / ".removal").rglob("*")) == []
    assert not (run / "logs" / "x").exists()
    assert (run / "pairs" / "a").read_bytes() == b"changed"


def test_a_whole_copy_whose_work_fails_leaves_nothing_in_a_store(stored):
    before = names(stored)
    with pytest.raises(FileNotFoundError), whole_copy(stored) as (copy, _):
        write_bytes(copy / "pairs" / "a", (copy / "pairs").read_bytes())
    assert names(stored) == before


class Lease:
    """Holds a run for so many files that are published."""

    def __init__(self, files):
        self.left = files

    def ask(self):
        self.left -= 1
        if self.left < 0:
            raise RunOver("another run has it")


def removal(stored, lease, between=lambda: None):
    """Change two files and commit them, while the lease lasts."""
    with published_if(lease.ask), whole_copy(stored) as (copy, there):
        write_bytes(copy / "pairs" / "a", b"changed")
        between()
        write_bytes(copy / "pairs" / "b", b"changed")
        commit(stored, copy, changes(stored, copy, there))


def test_who_holds_a_run_in_a_store_no_more_moves_nothing(stored):
    before = names(stored)
    with pytest.raises(RunOver):
        removal(stored, Lease(4))  # two files and two notes
    assert names(stored) == sorted([*before, *(f".removal/{name}" for name in NOTES), *NEW])
    assert (stored / "pairs" / "a").read_text() == "pairs/a"
    assert finish(stored)
    assert names(stored) == [name for name in before if name != ASKED]
    assert (stored / "pairs" / "a").read_text() == "changed"


def test_who_holds_a_run_in_a_store_no_more_drops_nothing_of_another_removal(stored):
    def another():
        (stored / ".removal" / "new" / "pairs" / "b").write_bytes(b"another's")

    with pytest.raises(RunOver):
        removal(stored, Lease(1), another)
    assert (stored / ".removal" / "new" / "pairs" / "b").read_bytes() == b"another's"


NEW = (".removal/new/pairs/a", ".removal/new/pairs/b")
