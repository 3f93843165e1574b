"""`pipeline serve`: what it refuses, and how it begins and ends."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.serve import serve
from tests.support.drawing import own_checkpoint
from tests.support.paths import ROOT

LIGHT = "import sys; from pipeline.cli.serve import serve; print([n for n in ('torch', 'aiohttp') if n in sys.modules])"


def told(*words):
    return CliRunner().invoke(app, ["serve", *words])


def test_help_is_light_and_names_the_address():
    assert "http://127.0.0.1:8765/" in (serve.__doc__ or "")
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


def test_a_port_that_is_taken_is_one_sentence_and_2(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        result = told(str(tmp_path), "--port", str(other.getsockname()[1]))
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "Address already in use; --port and --host choose another" in result.output


@pytest.mark.parametrize("words", [("--slots", "0"), ("--port", "70000"), ("--vq", " "), ("--precision", "fp8")])
def test_options_out_of_range_are_2(tmp_path, words):
    assert told(str(tmp_path), *words).exit_code == 2


def test_a_checkpoint_that_is_not_there_is_2(tmp_path):
    result = told(str(tmp_path / "none"), "--port", "0")
    assert result.exit_code == 2
    assert "error: " in result.output
    assert "none" in result.output
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_a_checkpoint_is_served_until_ctrl_c(tmp_path):
    served_weights = own_checkpoint(tmp_path / "own")
    words = [sys.executable, "-m", "pipeline.cli", "serve", str(served_weights), "--port", "0", "--no-compile"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stderr.readline, "")
            line = next(line for line in lines if "slots; Ctrl-C" in line)
            url = line.split()[2]
            with urllib.request.urlopen(f"{url}status", timeout=20) as answer:
                model = json.load(answer)["model"]
            assert model["says"].startswith("own/model.safetensors: GPT-demo")  # no folder of this machine
            assert model["classes"] is None
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, rest
    assert rest.strip().endswith("stopped; pictures that were not saved are gone.")
