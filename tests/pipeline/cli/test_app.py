"""pipeline/cli/app.py: the commands there are, and what a bare `pipeline` shows."""

import sys

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app, main


def test_help_names_every_command():
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    for name in ("run", "report", "whatif", "why", "plan", "verify", "repair", "remove", "show", "export", "import"):
        assert f" {name} " in done.stdout


def test_an_unknown_command_ends_with_2_and_says_so_on_stderr(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pipeline", "runn"])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert (end.value.code, out, "No such command 'runn'" in err) == (2, "", True)
