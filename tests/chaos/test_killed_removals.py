"""What a killed removal leaves is swept or gone on with, and nothing that was damaged meanwhile is put in place."""

import pytest
from typer.testing import CliRunner

from manifests.transaction import ASKED, NOTES
from pipeline.cli import app
from tests.support.removals import URL, command, contents, holding, interrupted, remove, whole

SELECTED = ("--url", URL.format(5), "--url", URL.format(3))


@pytest.fixture
def expected(removed_two):
    """Return what a run holds that nobody killed."""
    return contents(removed_two)


def killed(root, monkeypatch, moved):
    """Kill a removal when all its files are staged and `moved` of them are in place."""
    interrupted(root, monkeypatch, moved, counted=".removal/new")


def staged(root):
    return sorted(path for path in (root / ".removal" / "new").rglob("*") if path.is_file())


def others(root):
    """Return exit codes and outputs of the commands that hold a run."""
    lines = [
        ["run", "--recipe", str(root / "recipe.toml"), "--out", str(root), "--stage", "filter"],
        ["repair", str(root)],
    ]
    return [CliRunner().invoke(app, line) for line in lines]


@pytest.mark.parametrize("name", ["working copy", "staging"])
def test_what_a_kill_at_the_end_leaves_says_nothing_and_is_swept(run, monkeypatch, name):
    module = "manifests.working_copy" if name == "working copy" else "manifests.store"
    monkeypatch.setattr(f"{module}.shutil.rmtree", lambda *_, **__: None)
    remove(run, url=URL.format(5))
    monkeypatch.undo()
    left = [path.name for path in run.iterdir() if path.name.startswith(".tmp-repair-") or path.name == ".removal"]
    assert left
    assert holding(run, [], [URL.format(5)]) == set()
    assert list(run.rglob(ASKED)) == []
    done = command(run)
    assert (done.exit_code, "swept what a killed removal or run left" in done.output) == (0, True), done.output
    assert not any((run / one).exists() for one in left)
    assert (command(run).exit_code, whole(run)) == (2, [])


def test_one_whole_note_is_enough(run, expected, monkeypatch):
    killed(run, monkeypatch, 3)
    (run / ".removal" / NOTES[1]).write_text("{")
    assert command(run).exit_code == 0
    assert contents(run) == expected


def test_without_a_whole_note_every_command_says_so(run, monkeypatch):
    killed(run, monkeypatch, 3)
    for note in NOTES:
        (run / ".removal" / note).write_text("{")
    before = contents(run)
    for done in (*others(run), command(run), command(run, *SELECTED)):
        assert (done.exit_code, "which say what it had changed, are damaged or missing" in done.output) == (1, True), (
            done.output
        )
        assert "pipeline repair mends it" not in done.output
    assert contents(run) == before


def test_a_damaged_file_is_not_put_in_place(run, expected, monkeypatch):
    killed(run, monkeypatch, 3)
    path = run / ".removal" / "new" / "manifests" / "removals" / "0001.json"
    data = path.read_bytes()
    path.write_bytes(b"junk")
    before = contents(run)
    for done in (*others(run), command(run), command(run, *SELECTED)):
        says = ".removal/new/manifests/removals/0001.json is damaged or missing; nothing was moved now"
        assert (done.exit_code, says in done.output) == (1, True), done.output
    assert contents(run) == before
    path.write_bytes(data)
    assert command(run).exit_code == 0
    assert contents(run) == expected


@pytest.mark.parametrize("args", [(), SELECTED])
def test_a_removal_of_which_nothing_is_in_place_begins_anew(run, expected, monkeypatch, args):
    killed(run, monkeypatch, 0)
    staged(run)[0].write_bytes(b"junk")
    done = command(run, *args)
    assert (done.exit_code, "none of its files is in place: it begins anew" in done.output) == (0, True), done.output
    assert contents(run) == expected


def test_what_was_asked_can_be_asked_again(run, expected, monkeypatch):
    monkeypatch.setattr("pipeline.maintenance.remove.run.commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        remove(run, url=[URL.format(5), URL.format(3)])
    monkeypatch.undo()
    (run / ASKED).write_text("{")
    done = command(run)
    assert (done.exit_code, "give the same selectors again" in done.output) == (2, True), done.output
    assert command(run, *SELECTED).exit_code == 0
    assert contents(run) == expected
