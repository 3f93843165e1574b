"""pipeline/cli/remove.py: the command says what it did with which digest before and after, and ends with the exit code
of what stopped it."""

import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.remove import _names
from tests.support.removals import URL, command, contents, digests, uid


def test_the_command_prints_the_difference(run):
    before = digests(run)
    done = command(run, "--url", URL.format(5), "--host", "nobody.test")
    assert done.exit_code == 0, done.output
    assert "  url      pictures.test/5.jpg: 1 uids\n" in done.output
    assert "  host     nobody.test: no row here; a tombstone keeps it out of later input\n" in done.output
    for stage, digest in before.items():
        assert f"  {stage}: digest {digest[:16]}… -> {digests(run)[stage][:16]}…" in done.output
    again = command(run, "--url", URL.format(5))
    assert (again.exit_code, "already removed, nothing to do" in again.output) == (0, True)
    verified = CliRunner().invoke(app, ["verify", str(run)])
    assert verified.exit_code == 0, verified.output
    assert "removed: 1 uids" in verified.output


def test_a_host_that_the_recipe_names_is_told_and_stays_there(run):
    done = command(run, "--host", "pictures.test")
    assert "note: recipe.toml names pictures.test: the recipe is yours and stays as it is" in done.output
    verified = CliRunner().invoke(app, ["verify", str(run)])
    assert verified.exit_code == 0, verified.output
    assert "recipe.toml names a removed URL or host: it is yours, and stays as it is" in verified.output


def test_wrong_uses_end_with_2(run, tmp_path):
    before = contents(run)
    (tmp_path / "empty.txt").write_text("# nobody yet\n")
    for args in (
        [run],
        [run, "--uid", "abc"],
        [run, "--url", "nonsense"],
        [run, "--host", "http://pictures.test/"],
        [run, "--url", URL.format(5), "--list", tmp_path / "empty.txt"],
        [run, "--phash", "0xff"],
        [tmp_path / "nowhere", "--uid", "a" * 32],
        [run, "--list", "nowhere.txt"],
    ):
        done = command(*args)
        assert done.exit_code == 2, args
        assert "error: " in done.output
    with open(run / ".lock", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = command(run, "--uid", "a" * 32)
    assert (done.exit_code, "held by another run" in done.output) == (2, True)
    assert contents(run) == before


def test_a_damaged_run_is_left_alone(run):
    (run / "pairs" / "00000.tar").write_bytes(b"x" * 1024)
    before = contents(run)
    done = command(run, "--url", URL.format(5))
    assert (done.exit_code, "pipeline repair mends it" in done.output) == (1, True), done.output
    assert contents(run) == before


def test_faults_that_no_repair_mends_are_said_to_be_none(run, monkeypatch):
    (run / "pairs" / "mine.tar").write_bytes(b"no tar" * 500)
    done = command(run, "--url", URL.format(5))
    says = ("move it away" in done.output, "pipeline repair" in done.output, ".tmp-" in done.output)
    assert (done.exit_code, *says) == (1, True, False, False), done.output

    def full(*_):
        """Find no room."""
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pipeline.maintenance.remove.run.remove_rows", full)
    done = command(run, "--url", URL.format(5))
    assert (done.exit_code, "mend that" in done.output, "pipeline repair" in done.output) == (1, True, False)


def test_links_are_followed_or_refused(run, tmp_path):
    other = tmp_path / "big"
    shutil.move(run / "pairs", other)
    (run / "pairs").symlink_to("../big")
    shutil.move(other / "00001.tar", tmp_path / "one.tar")
    (other / "00001.tar").symlink_to(tmp_path / "one.tar")
    done = command(run, "--url", URL.format(5))
    assert (done.exit_code, f"is a link to {tmp_path / 'one.tar'}: the old bytes would stay there" in done.output) == (
        2,
        True,
    ), done.output
    os.replace(tmp_path / "one.tar", other / "00001.tar")
    done = command(run, "--url", URL.format(5))
    assert (done.exit_code, (run / "pairs").is_symlink()) == (0, True), done.output
    assert not [path for path in other.glob("*.tar") if uid(5).hex().encode() in path.read_bytes()]


@pytest.mark.skipif(
    not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat("/tmp").st_dev, reason="wants two disks"
)
def test_a_folder_of_another_disk_is_refused(run):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        shutil.move(run / "pairs", other)
        (run / "pairs").symlink_to(Path(other, "pairs"))
        done = command(run, "--url", URL.format(5))
    assert (done.exit_code, f"is a link to {other}" in done.output) == (2, True), done.output


def test_whole_names_are_looked_for_in_the_recipe():
    text = "http://img.pictures.test:80/5.jpg"
    assert _names(text, "host", "pictures.test")
    assert _names(text, "url", "img.pictures.test:80/5.jpg")
    for kind, value in (("host", "tures.test"), ("host", "img.pictures"), ("url", "img.pictures.test:80/5")):
        assert not _names(text, kind, value)
    assert not _names("127.0.1.1", "host", "1.1")
