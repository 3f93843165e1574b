"""pipeline/cli/maintenance.py: how findings are printed, and what verify and repair refuse."""

from pathlib import Path

from typer.testing import CliRunner

from manifests.findings import Finding
from manifests.verify import Report
from pipeline.cli import app
from pipeline.cli.maintenance import repair_document, repair_lines, report_document, report_lines

CUT = Finding("pairs/00000.tar", "damaged", "cut", "fetch", "00000")
DEAD = Finding("a\nb", "leftover", "of a dead attempt")
ROOT = Path("run")


def test_faults_come_before_notes_and_a_line_sums_up():
    report = Report(1234, 5_000_000, (DEAD, CUT), ("filter has not run",))
    assert list(report_lines(ROOT, report, False)) == [
        "  note: filter has not run",
        "  damaged  pairs/00000.tar: cut",
        "  note: leftover a\\nb: of a dead attempt",
        "run: 1 files are not as they should be; 1,234 files, 5,000,000 bytes checked",
    ]
    document = report_document(ROOT, report)
    assert (document["whole"], document["files"], document["notes"]) == (False, 1234, ["filter has not run"])
    assert [finding["wrong"] for finding in document["findings"]] == [False, True]


def test_a_hundred_findings_are_printed_and_the_rest_is_counted():
    report = Report(0, 0, tuple(Finding(f"{number:03}", "foreign", "x") for number in range(103)))
    lines = list(report_lines(ROOT, report, False))
    assert (len(lines), lines[100]) == (102, "  and 3 more (--all names them)")
    assert len(list(report_lines(ROOT, report, True))) == 104
    assert len(report_document(ROOT, report)["findings"]) == 103


def test_a_whole_run_has_nothing_to_repair():
    report = Report(3, 40, ())
    assert list(repair_lines(ROOT, report, None)) == ["run: whole, nothing to repair; 3 files, 40 bytes checked"]
    assert repair_document(ROOT, report, None) == {
        "folder": "run", "whole": True, "files": 3, "bytes": 40, "repaired": {}, "left": {},
    }  # fmt: skip


def test_folders_that_are_no_run_end_with_2(tmp_path):
    for command, says in (("verify", "neither a run folder"), ("repair", "no run folder"), ("remove", "no run folder")):
        done = CliRunner().invoke(app, [command, str(tmp_path)])
        assert (done.exit_code, done.stdout, says in done.stderr) == (2, "", True), done.output
        done = CliRunner().invoke(app, [command, ""])
        assert (done.exit_code, " is empty; wanted " in done.stderr) == (2, True), done.output
