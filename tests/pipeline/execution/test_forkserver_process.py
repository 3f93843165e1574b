"""pipeline/execution/forkserver_process.py: what a fork of the server becomes, and what ends it."""

import json
import os
import re
import signal
import subprocess

import pytest

from pipeline.execution.forkserver_process import OPTIONAL
from tests.support.light_forkserver import COMMAND, job
from tests.support.paths import ROOT
from tests.support.waiting import parents, wait_for


@pytest.fixture
def server():
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def ask(server, tmp_path, word, folder=None):
    """Ask for a worker and return its process number; its log is there by then, as the supervisor makes it."""
    (tmp_path / "log").touch()
    request = {"ticket": 5, "job": str(job(tmp_path, word)), "log": str(tmp_path / "log"), "environment": {"A": "1"}}
    server.stdin.write(json.dumps(request | {"folder": str(folder or tmp_path)}).encode() + b"\n")
    server.stdin.flush()
    answer = json.loads(server.stdout.readline())
    assert answer.keys() == {"ticket", "pid"}
    assert answer["ticket"] == 5
    return answer["pid"]


def test_a_worker_has_the_environment_the_folder_and_the_log_that_were_asked_for(server, tmp_path):
    (tmp_path / "log").write_text("before\n")
    ask(server, tmp_path, "tell")
    assert json.loads(server.stdout.readline()) == {"ticket": 5, "code": 0}
    assert (tmp_path / "log").read_text() == f"before\n[('A', '1')] {tmp_path} ''\n"  # nothing on standard input


@pytest.mark.parametrize(("word", "code"), [("7", 7), ("be killed", -9)])
def test_the_exit_code_is_answered_minus_the_number_of_the_signal(server, tmp_path, word, code):
    ask(server, tmp_path, word)
    assert json.loads(server.stdout.readline()) == {"ticket": 5, "code": code}


def test_what_fails_before_the_job_begins_is_in_the_workers_log(server, tmp_path):
    """It was a bare exit code 1."""
    ask(server, tmp_path, "7", folder=tmp_path / "none")
    assert json.loads(server.stdout.readline()) == {"ticket": 5, "code": 1}
    assert "FileNotFoundError" in (tmp_path / "log").read_text()


def test_ctrl_c_ends_neither_server_nor_worker(server, tmp_path):
    pid = ask(server, tmp_path, "sleep")
    wait_for(lambda: (tmp_path / "log").read_text() == "ready\n")
    for number in (server.pid, pid):
        os.kill(number, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert json.loads(server.stdout.readline()) == {"ticket": 5, "code": -signal.SIGTERM}
    ask(server, tmp_path, "7")


@pytest.mark.parametrize("end", ["kill", "close"])
def test_workers_end_with_the_server_and_the_server_with_its_input(server, tmp_path, end):
    pid = ask(server, tmp_path, "sleep")
    if end == "kill":
        server.kill()
    else:
        server.stdin.close()
    assert server.wait(30) == (-signal.SIGKILL if end == "kill" else 0)
    wait_for(lambda: pid not in parents())


def test_no_module_of_ours_imports_what_is_hidden_from_workers():
    packages = ("manifests", "filters", "captioning", "tokenize_shards", "pipeline")
    files = [path for name in packages for path in (ROOT / name).rglob("*.py")]
    imports = re.compile(rf"^\s*(import|from) ({'|'.join(OPTIONAL)})\b", re.MULTILINE)
    assert len(files) > 100
    assert [path for path in files if imports.search(path.read_text())] == []
