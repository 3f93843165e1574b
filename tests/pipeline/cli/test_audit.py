"""pipeline/cli/audit.py: a table or one JSON document, and exit code 2 with the choices."""

import json
import random

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.audit import audit_captions
from tests.support.caption_runs import Row, filler, write_captions


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    draw = random.Random(4)
    rows = [Row(n, text="a woman", captions={"llava": filler(draw), "qwen": "A cat."}) for n in range(30)]
    return write_captions(tmp_path_factory.mktemp("run"), rows)


def run(*words):
    return CliRunner().invoke(app, ["audit", "captions", *map(str, words)])


def test_a_table(root):
    done = run(root, "--top", "2")
    assert done.exit_code == 0
    assert "llava: 30 rows" in done.stdout
    assert "qwen: 30 rows" in done.stdout


def test_the_function_behind_it(root, capsys):
    audit_captions(str(root), top=1, captioner="qwen")
    assert "qwen: 30 rows, 30 captions in its own words" in capsys.readouterr().out


def test_json_is_one_document_and_the_same_each_time(root):
    done, again = run(root, "--json", "--captioner", "qwen"), run(root, "--json", "--captioner", "qwen")
    assert done.stdout == again.stdout
    told = json.loads(done.stdout)
    assert [one["captioner"] for one in told["captioners"]] == ["qwen"]
    assert told["captioners"][0]["repeats"]["top"][0]["pictures"] == 30


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--captioner", "lava"], "captioners: llava, qwen"),
        (["--top", "0"], "Invalid value"),
    ],
)
def test_wrong_use_ends_with_2_and_the_choices(root, words, says):
    done = run(root, *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


def test_no_run_no_captions_no_name(tmp_path):
    for words, says in (
        ([tmp_path / "no"], "first: pipeline run --stage filter"),
        ([tmp_path], "first: pipeline run --stage caption"),
        ([""], "RUN is empty"),
    ):
        done = run(*words)
        assert (done.exit_code, says in done.stderr) == (2, True), says


def test_a_damaged_table_ends_with_1(tmp_path):
    root = write_captions(tmp_path, [Row(1, captions={"a": "A cat."})])
    (root / "captions" / "a-00000.parquet").write_bytes(b"PAR1 no")
    done = run(root)
    assert (done.exit_code, "a-00000.parquet" in done.stderr) == (1, True)
