"""pipeline/cli/report.py: the page's path is the result, and a folder without a run is a wrong use."""

from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.report import report


def test_the_page_is_written_and_named(run, capsys):
    report(str(run / "recipe.toml"), str(run), None)
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_a_folder_without_a_run_ends_with_2(made, tmp_path):
    words = ["report", "--recipe", str(made / "recipe.toml"), "--out", str(tmp_path / "no")]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stdout, "first: pipeline run --stage filter" in done.stderr) == (2, "", True)
