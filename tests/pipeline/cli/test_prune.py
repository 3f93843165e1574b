"""pipeline prune: what it prints and how it ends."""

import fcntl
import json

import pytest

from manifests.aside import ASIDE, UNDER_WAY, Group
from manifests.files import write_bytes
from manifests.journal import FileRecord
from pipeline.cli.prune import prune_document, prune_lines
from pipeline.maintenance.prune import Kept
from tests.support.commands import pipeline_here

KEPT = [Kept("fetch", 1200, 4, 5_000_000), Kept("score", 7, 2, 600)]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "manifests" / "journal").mkdir(parents=True)
    for place, step in ((ASIDE, "score"), (UNDER_WAY, "caption")):
        folder = tmp_path / place / step
        write_bytes(folder / "abc-x.parquet", b"12345")
        files = (FileRecord.of(folder, folder / "abc-x.parquet"),)
        Group(folder, "abc", step, "m", 7, "abc-x.parquet", files).write()
    return tmp_path


def test_lines_say_rows_files_and_bytes_of_each_step(tmp_path):
    lines = list(prune_lines(tmp_path, KEPT, False, [Kept("caption", 3, 2, 50)]))
    assert lines[0] == "  fetch           1,200 rows        4 files          5,000,000 bytes"
    assert lines[1] == "  score               7 rows        2 files                600 bytes"
    assert lines[2] == "  note: caption was interrupted; 50 bytes of the plan before wait for the next run"
    assert lines[3] == f"{tmp_path}: 6 files, 5,000,600 bytes are set aside; --yes lets them go"
    assert list(prune_lines(tmp_path, KEPT, True, []))[2:] == [f"{tmp_path}: let go of 6 files, 5,000,600 bytes"]
    assert list(prune_lines(tmp_path, [], True, [])) == [f"{tmp_path}: nothing is set aside"]


def test_the_document(tmp_path):
    assert prune_document(tmp_path, KEPT[1:], False, []) == {
        "run": str(tmp_path),
        "let_go": False,
        "steps": {"score": {"rows": 7, "files": 2, "bytes": 600}},
        "files": 2,
        "bytes": 600,
        "under_way": {},
    }


def test_it_is_shown_first_and_goes_with_yes(root):
    size = sum(path.stat().st_size for path in (root / ASIDE).rglob("*") if path.is_file())
    shown = json.loads(pipeline_here("prune", root, "--json").stdout)
    assert (shown["steps"], shown["let_go"]) == ({"score": {"rows": 7, "files": 2, "bytes": size}}, False)
    assert list(shown["under_way"]) == ["caption"]
    assert (root / ASIDE).exists()
    done = pipeline_here("prune", root, "--yes")
    assert (done.exit_code, f"let go of 2 files, {size:,} bytes" in done.output) == (0, True)
    assert not (root / ASIDE).exists()
    assert (root / UNDER_WAY / "caption" / "abc-x.parquet").exists()


def test_wrong_uses_end_with_2_and_change_nothing(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    assert "no run folder" in _refused(other)
    assert "RUN is empty" in _refused("")
    assert "nothing of it is set aside; steps with something: score" in _refused(root, "--yes", "--step", "fetch")
    with open(root / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "held by another run" in _refused(root, "--yes")
    assert (root / ASIDE).exists()


def _refused(*args):
    done = pipeline_here("prune", *args)
    assert (done.exit_code, done.stdout) == (2, "")
    return done.stderr
