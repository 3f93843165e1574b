"""New files are staged and noted before the first old one goes; a kill in between is finished, or told."""

import hashlib

import pytest

from manifests.files import write_json
from manifests.transaction import ASKED, NOTES, PENDING, Changes, TransactionError, changes, commit, finish, is_left


def put(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path):
    put(tmp_path / "run", manifests__a="old", pairs__b="old", pairs__c="old")
    return tmp_path / "run"


def note(root, files, drop=()):
    """Leave behind what a removal has when it is killed just after its notes were written."""
    put(root / PENDING / "new", **files)
    digests = {name.replace("__", "/"): hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    for name in NOTES:
        write_json(root / PENDING / name, {"put": digests, "drop": list(drop)}, sealed=True)


def test_changes_are_by_content_and_records_come_last(root, tmp_path):
    copy = tmp_path / "copy"
    put(copy, manifests__a="new", pairs__b="old", z="new", pairs__d="longer")
    names = ["manifests/a", "pairs/b", "pairs/c"]
    assert changes(root, copy, names) == Changes(("pairs/d", "z", "manifests/a"), ("pairs/c",))


def test_a_link_to_the_same_file_is_no_change(root, tmp_path):
    (tmp_path / "copy" / "pairs").mkdir(parents=True)
    (tmp_path / "copy" / "pairs" / "b").hardlink_to(root / "pairs" / "b")
    assert changes(root, tmp_path / "copy", []) == Changes((), ())


def test_a_commit_puts_and_drops_and_leaves_nothing_behind(root, tmp_path):
    put(tmp_path / "copy", pairs__b="new", codes__x="new")
    put(root, **{ASKED: "{}"})
    commit(root, tmp_path / "copy", Changes(("codes/x", "pairs/b"), ("pairs/c",)))
    assert contents(root) == {"manifests/a": "old", "pairs/b": "new", "codes/x": "new"}
    assert not is_left(root)


def test_a_kill_after_the_notes_is_finished(root):
    note(root, {"pairs__b": "new", "manifests__a": "new"}, drop=["pairs/c"])
    put(root, **{ASKED: "{}"})
    assert is_left(root)
    assert finish(root) is True
    assert contents(root) == {"manifests/a": "new", "pairs/b": "new"}
    assert finish(root) is False


def test_a_kill_between_two_moves_is_finished(root):
    note(root, {"pairs__b": "new", "manifests__a": "new"})
    (root / PENDING / "new" / "pairs" / "b").replace(root / "pairs" / "b")
    (root / PENDING / NOTES[0]).write_text("{")  # one whole note is enough
    assert finish(root) is True
    assert contents(root) == {"manifests/a": "new", "pairs/b": "new", "pairs/c": "old"}


def test_a_kill_before_the_notes_is_forgotten(root):
    put(root / PENDING / "new", pairs__b="new")
    assert finish(root) is False
    assert contents(root) == {"manifests/a": "old", "pairs/b": "old", "pairs/c": "old"}


def test_damage_before_anything_was_changed_begins_anew(root, capsys):
    note(root, {"pairs__b": "new"})
    put(root / PENDING / "new", pairs__b="cut")
    assert finish(root) is False
    assert "pairs/b is damaged, and none of its files is in place: it begins anew" in capsys.readouterr().err
    assert contents(root) == {"manifests/a": "old", "pairs/b": "old", "pairs/c": "old"}


def test_damage_after_something_was_changed_is_told_and_nothing_moves(root):
    note(root, {"pairs__b": "new", "manifests__a": "new"})
    (root / PENDING / "new" / "pairs" / "b").replace(root / "pairs" / "b")
    put(root / PENDING / "new", manifests__a="cut")
    before = contents(root)
    with pytest.raises(TransactionError, match=r"\.removal/new/manifests/a is damaged or missing"):
        finish(root)
    assert contents(root) == before


def test_two_damaged_notes_are_told(root):
    note(root, {"pairs__b": "new"})
    for name in NOTES:
        (root / PENDING / name).write_text("{")
    with pytest.raises(TransactionError, match=r"\.removal/removal-copy\.json and \.removal/removal\.json"):
        finish(root)


def test_what_a_dead_process_left_is_noticed(root):
    assert not is_left(root)
    put(root / "pairs", **{".tmp-host-1-ab-x": ""})
    assert is_left(root)
