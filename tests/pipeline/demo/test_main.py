"""`make demo` runs its five commands in order, stops at the first that fails, and ends with how long each took."""

import subprocess
import sys

import pytest
import typer

from pipeline.demo import __main__ as main

PIPELINE = [sys.executable, "-m", "pipeline.cli"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that demo runs, in order; each succeeds."""
    return answers(monkeypatch, 0, 0, 0, 0, 0)


def answers(monkeypatch: pytest.MonkeyPatch, *codes: int | KeyboardInterrupt) -> list[list[str]]:
    """Let commands end with these codes in turn, and return the list that they are written to."""
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        assert not check
        code = codes[len(commands)]
        commands.append(command)
        if isinstance(code, KeyboardInterrupt):
            raise code
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(main.subprocess, "run", run)
    return commands


def test_three_stages_then_the_trainer_then_the_report(
    asked: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    main.demo()
    assert asked == [
        [*PIPELINE, "run", "--stage", "filter"],
        [*PIPELINE, "run", "--stage", "caption"],
        [*PIPELINE, "run", "--stage", "pretokenize"],
        [sys.executable, "-m", "pipeline.train"],
        [*PIPELINE, "report"],
    ]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("$ ")] == [
        "$ pipeline run --stage filter",
        "$ pipeline run --stage caption",
        "$ make pretokenize",
        "$ python -m pipeline.train",
        "$ pipeline report",
    ]
    assert lines[-1] == (
        "the demo took 0:00: pipeline run --stage filter 0:00, pipeline run --stage caption 0:00, "
        "make pretokenize 0:00, python -m pipeline.train 0:00, pipeline report 0:00"
    )


def test_the_run_folder_goes_to_every_command_and_the_workers_to_the_stages(asked: list[list[str]]) -> None:
    main.demo("there", 3)
    assert asked == [
        [*PIPELINE, "run", "--out", "there", "--workers", "3", "--stage", "filter"],
        [*PIPELINE, "run", "--out", "there", "--workers", "3", "--stage", "caption"],
        [*PIPELINE, "run", "--out", "there", "--workers", "3", "--stage", "pretokenize"],
        [sys.executable, "-m", "pipeline.train", "--out", "there"],
        [*PIPELINE, "report", "--out", "there"],
    ]


@pytest.mark.parametrize(("end", "code"), [(3, 3), (-9, -9), (KeyboardInterrupt(), 130)])
def test_the_first_command_that_fails_is_the_last(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: int | KeyboardInterrupt,
    code: int,
) -> None:
    asked = answers(monkeypatch, 0, end)
    with pytest.raises(typer.Exit) as ended:
        main.demo()
    assert ended.value.exit_code == code
    assert [command[-1] for command in asked] == ["filter", "caption"]
    assert "the demo took" not in capsys.readouterr().out
