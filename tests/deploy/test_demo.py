"""deploy/demo.py: the same stages here and on each engine, and their digests side by side."""

import json
import os

import pytest

from deploy import demo
from deploy.demo import LIGHT, Trial, compare, main, run
from deploy.settings import Settings, write
from pipeline.recipes.load import load_recipe


def test_a_command_is_what_a_user_would_type(tmp_path):
    command = Trial("local", tmp_path, "light.toml").command("filter", Settings())
    assert command[1:] == [
        *("-m", "pipeline.cli", "run", "--stage", "filter"),
        "--out",
        str(tmp_path),
        "--recipe",
        "light.toml",
    ]
    assert "--recipe" not in Trial("flink", tmp_path).command("filter", Settings())


def test_the_light_recipe_is_one():
    assert load_recipe(str(LIGHT)).score.use == ["opennsfw"]


def test_digests_are_those_of_the_stages_that_are_done(tmp_path):
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "filter.json").write_text(json.dumps({"digest": "abc"}))
    assert Trial("flink", tmp_path).digests() == {"filter": "abc"}


def test_a_stage_that_fails_is_said_with_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(demo.sys, "executable", "false")
    with pytest.raises(OSError, match=r"flink: filter ended with 1; see .*log"):
        run(Trial("flink", tmp_path), Settings(), tmp_path / "log")


def test_a_digest_that_differs_is_an_exit_code(capsys):
    local = {"filter": "a", "pretokenize": "b"}
    assert compare({"local": local, "flink": dict(local)}) == 0
    assert compare({"local": local, "flink": {"filter": "a"}}) == 1
    assert "flink  None  DIFFERENT" in capsys.readouterr().out


def test_an_engine_that_does_not_run_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "run_folder", lambda: tmp_path)
    assert main([]) == 1
    assert "make cluster-up" in capsys.readouterr().err
    write(Settings(), tmp_path)  # as after `make cluster-down`
    assert main(["--light"]) == 1
    assert "no cluster runs; first: make cluster-up" in capsys.readouterr().err
    assert main(["--engines", "spark"]) == 1
    assert "spark does not run here; start it: make cluster-up" in capsys.readouterr().err


def test_a_spark_driver_of_the_demo_listens_on_this_machine_alone(monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_IP", "192.0.2.1")
    assert demo.local()["SPARK_LOCAL_IP"] == "127.0.0.1"
    assert demo.local().keys() == os.environ.keys()
