"""pipeline/cli/output.py: a result is alone on stdout, whole JSON or its lines; notes are on stderr."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.output import as_text, note, put, result, shown
from tests.support.keep_runs import without_beam
from tests.support.paths import ROOT
from tests.support.removals import URL


def test_keys_keep_their_order_numbers_stay_numbers_and_bytes_become_hex():
    document = {"b": 1, "a": 0.5, "uid": b"\x0f\xf0", "path": Path("x/y"), "text": "é", "none": None}
    assert as_text(document) == '{"b": 1, "a": 0.5, "uid": "0ff0", "path": "x/y", "text": "\\u00e9", "none": null}'


def test_a_result_is_a_document_or_lines_and_a_note_is_neither(capsys):
    result(True, {"kept": 3}, ["kept 3"])
    assert capsys.readouterr() == ('{"kept": 3}\n', "")
    result(False, {"kept": 3}, iter(["rows 4", "kept 3"]))
    assert capsys.readouterr() == ("rows 4\nkept 3\n", "")
    note("by the way")
    assert capsys.readouterr() == ("", "by the way\n")


def test_names_that_a_terminal_would_obey_are_escaped():
    assert shown("a\n\x1b[2J\udcff é") == "a\\n\\x1b[2J\\udcff é"


def test_a_reader_that_went_away_is_no_error():
    code = "from pipeline.cli.output import put\nput('x' * 100_000)\nraise SystemExit(40)"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (40, b"")


def test_a_closed_stdout_is_one(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OSError, match="standard output is closed"):
        put("kept 3")


def document(*args, code=0):
    """Return what a command prints with --json: the whole of its stdout."""
    with without_beam():
        done = CliRunner().invoke(app, [*map(str, args), "--json"])
    assert done.exit_code == code, done.output
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def test_every_command_that_prints_a_result_has_the_option():
    import typer.main

    def leaves(command, name):
        for key, child in getattr(command, "commands", {"": command}).items():
            yield from leaves(child, f"{name} {key}") if key else [(name, command)]

    commands = dict(leaves(typer.main.get_command(app), "pipeline"))
    for pictures in ("pipeline sample", "pipeline serve"):  # whose result is files, and a server
        del commands[pictures]
    assert sorted(commands) == sorted(
        f"pipeline {name}"
        for name in (
            *("run", "report", "whatif", "why", "plan", "verify", "repair", "remove", "recheck", "prune"),
            "audit captions",
            *("show codes", "export llamagen", "import llamagen"),
        )
    )
    for name, command in commands.items():
        assert "--json" in [option for parameter in command.params for option in parameter.opts], name


@pytest.fixture
def asked(run):
    """Return the options that name the copied run."""
    return "--recipe", run / "recipe.toml", "--out", run


def test_why(asked):
    told = document("why", URL.format(3), *asked)
    row = told["rows"][0]
    assert (told["asked"], told["notes"], row["url"], row["width"]) == (URL.format(3), [], URL.format(3), 96)
    assert len(row["uid"]) == 32
    assert "fate      kept" in " ".join(row["story"])


def test_whatif_and_plan(asked):
    funnel = document("whatif", *asked)
    assert funnel["now"] == funnel["then"]
    assert (funnel["now"]["rows_in"], funnel["exact"]) == (52, True)
    assert document("plan", *asked, "--rows", 30)["rows"] == 52


def test_run(asked):
    ended = document("run", "--stage", "filter", *asked)
    (stage,) = ended["stages"]
    assert (stage["stage"], stage["rows_in"], stage["shards_made"]) == ("filter", 52, 0)
    assert stage["kept"] + sum(stage["dropped"].values()) == 52
    assert document("run", "--stage", "filter", *asked, "--dry-run")["stages"] == []


def test_verify_and_repair(run):
    whole = document("verify", run)
    assert (whole["whole"], whole["findings"]) == (True, [])
    assert document("repair", run)["repaired"] == {}
    (run / "pairs" / "00000.tar").write_bytes(b"")
    (finding,) = document("verify", run, code=1)["findings"]
    assert (finding["path"], finding["kind"], finding["wrong"]) == ("pairs/00000.tar", "damaged", True)


def test_remove(run):
    gone = document("remove", run, "--url", URL.format(5), "--host", "nobody.test")
    assert (gone["rows"], gone["uids"]) == (1, 1)
    assert [(entry["kind"], entry["uids"], entry["known"]) for entry in gone["selectors"]] == [
        ("url", 1, False),
        ("host", 0, False),
    ]
    assert document("remove", run, "--url", URL.format(5))["selectors"][0]["known"] is True


def test_report_export_import_and_show(asked, run, tmp_path):
    page = document("report", *asked)
    assert page == {"report": str(run / "report.html"), "bytes": (run / "report.html").stat().st_size}
    out = document("export", "llamagen", run, "--to", tmp_path / "out")
    assert out["folder"] == str(tmp_path / "out")
    assert out["lines"] == out["pictures"] > 0
    sheet = document("show", "codes", run / "codes/pretrain/00000.tar", "--n", 1, "--sheet", tmp_path / "sheet.png")
    assert (sheet["sheet"], len(sheet["psnr_db"])) == (str(tmp_path / "sheet.png"), 1)
    stand_in = ("--jsonl", tmp_path / "out/jsonl", "--size", 64, "--vq", "VQ-demo", "--to", tmp_path / "in")
    back = document("import", "llamagen", "--codes", tmp_path / "out/codes", *stand_in)
    assert back["rows_in"] == back["kept"] == out["lines"]
