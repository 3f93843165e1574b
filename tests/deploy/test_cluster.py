"""deploy/cluster.py: what cannot be started is said before anything starts, and nothing is left behind."""

import socket
import sys
from itertools import pairwise

import pytest

from deploy import cluster
from deploy.cluster import NotUp, answers, check, main, runner_options, slots, spark_workers, up
from deploy.demo import LIGHT
from deploy.processes import noted_in, start, started_at
from deploy.settings import Settings, run_folder, write
from pipeline.recipes.load import load_recipe
from tests.support.waiting import wait_for


@pytest.fixture
def ready(monkeypatch):
    """Java and the libraries seem to be there."""
    monkeypatch.setattr(cluster.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(cluster, "is_fresh", lambda name: True)


def refused(settings, engines, folder):
    with pytest.raises(NotUp) as error:
        check(settings, engines, folder)
    return str(error.value)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def free():
    """Settings of ports that nobody has."""
    names = ("flink_page", "flink_rpc", "flink_blob", "spark_master", "spark_page", "pool")
    return Settings(**{name: free_port() for name in names})


def test_what_is_missing_is_said_with_its_remedy(ready, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "is_fresh", lambda name: name == "spark")
    assert refused(free(), {"flink", "spark"}, tmp_path) == "no libraries of flink; get them: make cluster-jars"
    monkeypatch.setattr(cluster.shutil, "which", lambda name: None)
    assert refused(free(), {"flink"}, tmp_path).startswith("no `java` on PATH")


def test_a_port_that_another_has_is_named_with_its_option(ready, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = refused(Settings(**{**vars(free()), "flink_rpc": port}), {"flink"}, tmp_path)
    assert text.startswith(f"another program listens on --flink-rpc {port};")


def test_a_second_cluster_in_the_same_folder_is_refused(ready, tmp_path):
    one = start("flink-jobmanager", [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path)
    assert "flink-jobmanager" in refused(free(), {"flink"}, tmp_path)
    one.end()
    wait_for(lambda: not any(noted.alive for noted in noted_in(tmp_path)))
    check(free(), {"flink"}, tmp_path)


def test_where_a_process_fails_those_before_it_are_ended(ready, tmp_path, monkeypatch):
    def pool(settings, folder):
        start("pool", [sys.executable, "-c", "import time; time.sleep(600)"], folder)

    def fails(settings, folder, home):
        pids.append(noted_in(folder)[0].pid)
        assert noted_in(folder)[0].alive
        raise NotUp("no JobManager")

    pids: list[int] = []
    monkeypatch.setattr(cluster, "start_pool", pool)
    monkeypatch.setattr(cluster, "start_flink", fails)
    with pytest.raises(NotUp, match="no JobManager"):
        up(free(), {"flink"}, tmp_path)
    assert noted_in(run_folder(tmp_path)) == []
    assert started_at(pids[0]) is None


def test_a_process_that_ends_before_it_listens_is_shown_with_its_log(tmp_path):
    one = start("pool", [sys.executable, "-c", "import sys; sys.exit('no such module')"], tmp_path)
    with pytest.raises(NotUp, match=r"pool does not listen on port \d+:\n  no such module"):
        answers(one, free_port())


def test_free_slots_and_workers_are_asked_for_and_none_where_nobody_answers():
    assert slots(free()) == spark_workers(free()) == 0


def test_what_runs_is_told_with_the_options_of_a_run(tmp_path, monkeypatch, capsys):
    folder = run_folder(tmp_path)
    folder.mkdir()
    write(Settings(pool=5), folder)
    monkeypatch.setattr(cluster, "run_folder", lambda *home: folder)
    start("flink-jobmanager", [sys.executable, "-c", "import time; time.sleep(600)"], folder)
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "flink-jobmanager" in said
    assert "http://127.0.0.1:8081" in said
    assert "127.0.0.1:5" in said
    assert "spark:" not in said
    assert main(["down"]) == 0
    assert capsys.readouterr().out == "ended: flink-jobmanager\n"
    assert main(["down"]) == 0
    assert capsys.readouterr().out == "ended: nothing ran\n"


@pytest.mark.parametrize("engine", ["flink", "spark"])
def test_the_options_of_a_run_are_keys_of_the_recipe(engine, tmp_path):
    options = runner_options(engine, Settings(pool=5), tmp_path)
    assert options[:2] == ["--runner", engine]
    sets = [value for word, value in pairwise(options[2:]) if word == "--set"]
    runner = load_recipe(str(LIGHT), sets).runner
    assert runner.jar == str(tmp_path / f"{engine}-job-server.jar")
    assert runner.pools == ("127.0.0.1:5",)
    assert runner_options("local", Settings()) == []
