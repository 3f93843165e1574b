"""pipeline/cli/app.py: the commands there are, and what a bare `pipeline` shows."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app, main
from tests.support.paths import ROOT


def test_help_names_every_command():
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    for name in (
        "run",
        "report",
        "whatif",
        "why",
        "plan",
        "verify",
        "repair",
        "remove",
        "recheck",
        "show",
        "export",
        "import",
    ):
        assert f" {name} " in done.stdout


def test_a_word_that_is_no_utf8_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pipeline", "verify", "run\udcff"])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, *capsys.readouterr()) == (
        2,
        "",
        "error: 'run\\udcff': no UTF-8; recipes and records, which name it, are\n",
    )


def test_closed_streams_are_taken_by_dev_null():
    code = "import sys; sys.argv = ['pipeline', 'verify', 'nowhere']; from pipeline.cli.app import main; main()"
    words = [sys.executable, "-c", code]
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *words], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


def test_an_unknown_command_ends_with_2_and_says_so_on_stderr(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pipeline", "runn"])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert (end.value.code, out, "No such command 'runn'" in err) == (2, "", True)
