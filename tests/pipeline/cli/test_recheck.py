"""pipeline/cli/recheck.py: what is printed, and what is refused."""

import json
from pathlib import Path

from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.recheck import recheck_document, recheck_lines
from pipeline.maintenance.recheck import Rechecked
from tests.support.small_web import KEPT

DONE = Rechecked(1234, 1000, 200, {"timeout": 34}, {"robots.txt": 200}, Path("run/recheck/refused.csv"))


def test_lines_name_signals_what_is_unknown_and_the_way_on():
    assert list(recheck_lines(Path("run"), DONE)) == [
        "  refused  robots.txt                             200",
        "  unknown  timeout                                 34",
        "run: 1,234 kept rows asked again: 1,000 allowed, 200 refused now",
        "remove them: pipeline remove run --list run/recheck/refused.csv",
    ]
    nothing = Rechecked(5, 5, 0, {}, {}, Path("run/recheck/refused.csv"))
    assert list(recheck_lines(Path("run"), nothing)) == ["run: 5 kept rows asked again: 5 allowed, 0 refused now"]


def test_the_document_has_the_counts_as_numbers():
    assert recheck_document(Path("run"), DONE) == {
        "run": "run", "rows": 1234, "allowed": 1000, "refused": 200, "unknown": {"timeout": 34},
        "refusals": {"robots.txt": 200}, "list": Path("run/recheck/refused.csv"),
    }  # fmt: skip


def test_folders_that_are_no_run_end_with_2(tmp_path):
    for folder, says in ((str(tmp_path), "no run folder"), ("", "is empty; wanted")):
        done = CliRunner().invoke(app, ["recheck", folder])
        assert (done.exit_code, done.stdout, says in done.stderr) == (2, "", True), done.output


def test_the_command_prints_the_document_and_writes_the_list(run, web):
    done = CliRunner().invoke(app, ["recheck", str(run), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["rows"], document["allowed"], document["refused"]) == (KEPT, KEPT, 0)
    assert Path(document["list"]).read_text() == "uid,reason,rule,value\n"
    assert "recheck  21 rows" in done.stderr
