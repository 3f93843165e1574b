"""pipeline/execution/java.py: a job server of our own, tried with a program that answers as Java would."""

import os
import signal
import sys
from pathlib import Path

import pytest

from pipeline.execution import java
from pipeline.execution.backends import ServerCommand
from pipeline.execution.errors import RunFailed
from pipeline.execution.java import JobServer, answers, free_ports, job_server
from pipeline.recipes.schema import RecipeError
from tests.support.waiting import descendants, wait_for

LISTENS = """#!{python}
import socket, sys
port = next(int(word.partition("=")[2]) for word in sys.argv if word.startswith("--job-port="))
print("started with", *sys.argv[1:], flush=True)
with socket.create_server(("127.0.0.1", port)) as server:
    while True:
        server.accept()[0].close()
"""
ENDS = """#!{python}
import sys
sys.exit("Error: could not find or load main class a.B")
"""


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    java.close()


def command(folder: Path, program: str, *options: str) -> ServerCommand:
    script = folder / "java"
    script.write_text(program.format(python=sys.executable))
    script.chmod(0o755)
    (folder / "a.jar").write_bytes(b"")
    return ServerCommand(str(script), ("-cp", str(folder / "*"), "a.B"), options)


def test_it_is_started_once_and_again_where_it_ended(tmp_path):
    wanted = command(tmp_path, LISTENS, "--flink-master=[local]")
    first = job_server(wanted, tmp_path / "logs" / "server.log")
    assert job_server(wanted, tmp_path / "logs" / "server.log") is first
    assert "-cp" in first.said()
    assert "--flink-master=[local] --artifacts-dir" in first.said()
    first.close()
    assert not answers(first.endpoint)
    second = job_server(wanted, tmp_path / "logs" / "server.log")
    assert second is not first
    assert answers(second.endpoint)
    java.close()
    assert not answers(second.endpoint)


def test_one_that_was_killed_is_started_again_while_its_keeper_still_runs(tmp_path, monkeypatch):
    """The run ended with "the job server ended at its start" and lines of the old one's log."""
    wanted = command(tmp_path, LISTENS)
    first = job_server(wanted, tmp_path / "server.log")
    for pid in descendants(first.process.pid):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not answers(first.endpoint))
    with monkeypatch.context() as patch:
        patch.setattr(JobServer, "alive", True)
        assert job_server(wanted, tmp_path / "server.log") is not first


def test_one_that_ends_at_its_start_says_why(tmp_path):
    with pytest.raises(RunFailed, match=r"could not find or load main class a.B; its log: .*server.log"):
        job_server(command(tmp_path, ENDS), tmp_path / "server.log")


def test_no_java_is_said_with_the_remedy(tmp_path):
    with pytest.raises(RecipeError, match=r"no Java: .*set JAVA_HOME or runner.java"):
        JobServer(ServerCommand(str(tmp_path / "java"), ("-jar", "a.jar"), ()), tmp_path / "log")


@pytest.mark.parametrize(
    ("loads", "said"),
    [
        (("-jar", "none.jar"), "runner.jar: 'none.jar'"),
        (("-cp", "none", "a.B"), "runner.classpath: 'none'"),
        (("-cp", "empty/*", "a.B"), "runner.classpath: 'empty/"),
        (("--add-opens=x", "-cp", "a.jar:none.jar", "a.B"), "runner.classpath: 'none.jar'"),
    ],
)
def test_what_is_loaded_must_be_there(tmp_path, monkeypatch, loads, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    real = command(tmp_path, LISTENS)
    with pytest.raises(RecipeError) as error:
        JobServer(ServerCommand(real.java, loads, ()), tmp_path / "log")
    assert said in str(error.value)
    assert os.getcwd() in str(error.value)


def test_ports_are_free_and_different():
    ports = free_ports(3)
    assert len(set(ports)) == 3
    assert not any(answers(f"localhost:{port}") for port in ports)
    assert not answers("localhost")
    assert not answers("localhost:99999")
