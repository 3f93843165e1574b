"""`pipeline sample`: the options of `python -m pipeline.sample`, its help without torch, its exit code."""

import subprocess
import sys

from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.sample import sample
from tests.support.drawing import own_checkpoint
from tests.support.paths import ROOT


def test_its_help_imports_no_torch():
    code = (
        "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules, 'numpy' in sys.modules));"
        " sys.argv = ['pipeline', 'sample', '--help']; from pipeline.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: pipeline sample ")
    assert "--cfg-interval" in done.stdout
    assert done.stdout.endswith("False False\n")


def test_its_first_line_stands_in_the_help_of_all():
    assert sample.__doc__.splitlines()[0][:40] in CliRunner().invoke(app, ["--help"]).output


def test_it_draws_and_hands_on_the_exit_code(tmp_path):
    own = own_checkpoint(tmp_path / "own")
    done = CliRunner().invoke(app, ["sample", str(own), "a red cat", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "00000.png").is_file()
    assert CliRunner().invoke(app, ["sample", str(own), "--out", str(tmp_path / "out")]).exit_code == 2
    assert CliRunner().invoke(app, ["sample", "--nonsense"]).exit_code == 2
