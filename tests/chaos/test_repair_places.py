"""Verify and repair in a folder where anything may lie or happen: pipes, folders, links, odd names, a kill, a full
disk, no permission."""

import errno
import os
import shutil
import signal

import pytest
from typer.testing import CliRunner

from manifests.verify import verify_run
from manifests.verify_shards import verify_folder
from pipeline.cli import app
from pipeline.execution.errors import RunFailed
from pipeline.maintenance.repair.run import STAGE_STEPS
from pipeline.recipes.schema import RecipeError
from tests.support.damages import DAMAGES
from tests.support.journals import spread
from tests.support.keep_runs import differing, files_of, mend

TAR, PACKED, JOURNAL = "pairs/00000.tar", "codes/pretrain/00000.tar", "manifests/journal/score/00000.json"
KINDS = (
    TAR,
    PACKED,
    JOURNAL,
    "manifests/journal/fetch.parquet",
    "manifests/pretokenize.parquet",
    "codes/pretrain/00000.index.json",
    "manifests/filter.json",
    "manifests/plan/fetch/plan.json",
    "recipe.toml",
)


@pytest.fixture(scope="module")
def made(made, tmp_path_factory):
    """Return the whole run with a JSON a record, as a step under way has them, and folders of before."""
    return spread(shutil.copytree(made, tmp_path_factory.mktemp("spread") / "run"), "score")


@pytest.fixture
def soon():
    """End a test that hangs: whoever opens a pipe waits for ever."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def wrong(root):
    return {finding.path: finding.kind for finding in verify_run(root, STAGE_STEPS).wrong}


def put(path, kind):
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link to nothing": "/nowhere/at all", "link to itself": path.name}[kind])


@pytest.mark.parametrize("kind", ["pipe", "link to nothing", "link to itself"])
def test_pipes_and_links_in_the_place_of_files_are_replaced(run, made, soon, kind):
    for name in KINDS:
        put(run / name, kind)
    assert set(wrong(run)) == set(KINDS)
    assert (mend(run).left, differing(run, made)) == ({}, [])


def test_a_folder_in_the_place_of_a_file_is_named_and_stays(run, made):
    for name in KINDS:
        put(run / name, "folder")
    assert wrong(run) == dict.fromkeys(KINDS, "damaged")
    left = mend(run).left
    assert left[TAR] == "made again, but it cannot be put in its place (Is a directory)"
    assert set(left) == set(KINDS)
    for name in KINDS:
        (run / name).rmdir()
    assert (mend(run).left, differing(run, made)) == ({}, [])


def test_links_to_files_and_folders_elsewhere_are_followed_and_never_round_in_a_circle(run, made, tmp_path):
    shutil.move(run / "pairs", tmp_path / "disk")
    (run / "pairs").symlink_to(tmp_path / "disk")
    shutil.move(run / PACKED, tmp_path / "packed.tar")
    (run / PACKED).symlink_to("../../../packed.tar")
    assert wrong(run) == {}
    (run / "pairs" / "round").symlink_to(run)
    (run / "pairs" / "stray.txt").write_text("?")
    assert wrong(run) == {"pairs/round": "foreign", "pairs/stray.txt": "foreign"}
    for name in ("round", "stray.txt"):
        (run / "pairs" / name).unlink()
    DAMAGES["body bit flip"](run / TAR)
    DAMAGES["cut mid-body"](run / "codes" / "pretrain" / "00000.index.json")
    assert (mend(run).left, wrong(run)) == ({}, {})
    assert differing(tmp_path / "disk", made / "pairs") == []
    assert (run / "pairs").is_symlink()


def test_odd_names_are_printed_with_escapes(run):
    for name in ("ünï✓.txt", "a\nforeign  b", os.fsdecode(b"bad\xff")):
        (run / "pairs" / name).write_text("?")
    for command in ("verify", "repair"):
        done = CliRunner().invoke(app, [command, str(run)])
        assert (done.exit_code, type(done.exception)) == (1, SystemExit)
        for name in ("pairs/ünï✓.txt: ", "pairs/a\\nforeign  b: ", "pairs/bad\\udcff: "):
            assert name in done.output


@pytest.mark.parametrize("jobs", ["-1", "x", "2.5", "1025"])
def test_a_number_of_jobs_that_is_none_is_refused(run, jobs):
    for command in ("verify", "repair"):
        done = CliRunner().invoke(app, [command, str(run), "--jobs", jobs])
        assert (done.exit_code, "Invalid value for '--jobs'" in done.output) == (2, True)


@pytest.mark.parametrize("moves", [1, 2, 4])
def test_killed_at_a_move_the_folder_is_as_it_was_or_better(run, made, moves):
    hit = [TAR, PACKED, JOURNAL, "manifests/filter.json", "captions/llava-00000.parquet"]
    for name in hit:
        DAMAGES["hole of zeros"](run / name)
    before = {name: (run / name).read_bytes() for name in hit}
    child = os.fork()
    if not child:
        _die_at(run, moves)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    whole = [name for name in hit if (run / name).read_bytes() == (made / name).read_bytes()]
    assert len(whole) == moves - 1
    assert all((run / name).read_bytes() == before[name] for name in hit if name not in whole)
    assert set(wrong(run)) == set(hit) - set(whole)
    assert (mend(run).left, differing(run, made)) == ({}, [])
    assert not [path for path in files_of(run) if ".tmp-" in str(path)]


def _die_at(root, moves):
    real, left = os.replace, [moves]

    def replace(source, target):
        if ".tmp-repair" in str(source) and ".tmp-repair" not in os.path.dirname(target):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    try:
        os.replace = replace
        mend(root)
    finally:
        os._exit(0)


@pytest.mark.parametrize(
    "place", ["pipeline.maintenance.repair.session.move_over", "pipeline.maintenance.repair.shards.do_units"]
)
def test_a_full_disk_ends_the_repair_and_harms_nothing(run, made, monkeypatch, place):
    DAMAGES["cut mid-body"](run / PACKED)
    before = differing(run, made)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, full)
    with pytest.raises(RunFailed, match="no room left to write"):
        mend(run)
    monkeypatch.undo()
    assert differing(run, made) == before == [PACKED]
    assert (mend(run).left, differing(run, made)) == ({}, [])


def test_a_folder_that_cannot_be_written_to_is_refused_and_can_be_verified(run):
    (run / ".lock").unlink()
    (run / ".lock").mkdir()
    DAMAGES["empty"](run / PACKED)
    assert wrong(run) == {PACKED: "damaged"}
    with pytest.raises(RecipeError, match="cannot be written to"):
        mend(run)


def test_pictures_that_may_not_be_read_are_not_asked_for_again(run, web, monkeypatch):
    DAMAGES["empty"](run / TAR)
    since, real = len(web.hits), os.access
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith("pairs") and real(path, mode))
    assert mend(run).left[TAR].startswith("pairs/ may not be read and written to")
    assert web.hits[since:] == []


def test_one_repair_at_a_time(run):
    import fcntl

    DAMAGES["empty"](run / PACKED)
    with open(run / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = CliRunner().invoke(app, ["repair", str(run)])
        assert (done.exit_code, "held by another run" in done.output) == (2, True)
        said = CliRunner().invoke(app, ["verify", str(run)])
    assert (said.exit_code, "a run holds this folder now" in said.output) == (1, True)


def test_pipes_and_folders_among_bare_shards(run, tmp_path, soon):
    shutil.copytree(run / "codes" / "pretrain", tmp_path / "bare")
    put(tmp_path / "bare" / "00000.tar", "pipe")
    put(tmp_path / "bare" / "00001.index.json", "folder")
    found = {(finding.path, finding.kind) for finding in verify_folder(tmp_path / "bare").wrong}
    assert found == {("00000.tar", "missing"), ("00000.tar", "foreign"), ("00001.index.json", "missing")}
