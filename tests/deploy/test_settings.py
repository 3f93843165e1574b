"""deploy/settings.py: ports are options, checked before anything starts, and noted for what comes later."""

import argparse
import socket

import pytest

from deploy.settings import Settings, add_options, from_options, read, run_folder, write


def asked(*arguments):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return from_options(parser.parse_args(arguments))


def test_every_setting_is_an_option():
    assert asked() == Settings()
    assert asked("--flink-page", "18081", "--task-managers", "2").flink_page == 18081
    assert asked("--task-managers", "2", "--slots", "3").parallelism == 6


def test_only_ports_of_what_is_started_are_looked_at():
    assert set(Settings().ports({"spark"})) == {"spark_master", "spark_page", "pool"}
    assert len(set(Settings().ports({"flink", "spark"}).values())) == 6
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"--flink-page {port}" in Settings(flink_page=port).taken({"flink"})
        assert f"--flink-page {port}" not in Settings(flink_page=port).taken({"spark"})


def test_settings_are_noted_for_what_uses_the_cluster(tmp_path):
    write(Settings(pool=5), tmp_path)
    assert read(tmp_path) == Settings(pool=5)
    assert run_folder(tmp_path) == tmp_path / "run"


def test_without_a_cluster_it_is_said_how_to_start_one(tmp_path):
    with pytest.raises(OSError, match=r"no cluster was started here .* make cluster-up"):
        read(tmp_path)
