"""The whole chain with its run folder in an object store (moto's, on 127.0.0.1): workers are processes of their own.

Digests are those of a run on a disk; questions are answered, the report written, a GPT trained and drawn from.
"""

import json

import pytest

from manifests.files import read_json
from manifests.store import path_of
from pipeline.train import main as train
from tests.support.commands import pipeline_here, pipeline_with_workers
from tests.support.keep_runs import files_of
from tests.support.object_store import object_store, reached
from tests.support.removals import URL
from tests.support.small_web import write_input, write_recipe

pytest.importorskip("moto.server", reason="moto, an S3-compatible server, is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_demo")]

SMALL = (
    *(
        "train.tier=pretrain",
        "train.model=GPT-demo",
        "train.text=hashed_words",
        "train.cond_len=8",
        "train.cond_dim=32",
        "train.batch=4",
    ),
    *("train.steps=4", "train.log_every=1", "train.checkpoint_every=2", "train.sample_every=4"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory, web):
    """Yield (a folder of this machine, the root) of a finished chain in a store, made with two workers."""
    folder = tmp_path_factory.mktemp("stored")
    write_input(folder / "in")
    with pytest.MonkeyPatch.context() as patch, object_store() as store, reached(store):
        patch.setenv("TESSERA_SCRATCH", str(folder / "scratch"))
        (folder / "here").mkdir()
        patch.chdir(folder / "here")
        recipe = write_recipe(folder / "recipe.toml", web, folder / "in", store.url())
        done = pipeline_with_workers("run", "--stage", "all", "--recipe", recipe, "--workers", "2")
        assert done.exit_code == 0, done.output
        yield folder, path_of(store.url())


def test_the_digests_are_those_of_a_run_on_a_disk(place, made):
    _, root = place
    assert read_json(root / "manifests" / "digests.json") == read_json(made / "manifests" / "digests.json")


def test_the_files_are_those_of_a_run_on_a_disk(place, made):
    _, root = place
    there = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    names = {path.relative_to(made).as_posix() for path in files_of(made)}
    assert {name for name in there if not name.startswith((".", "train/", "report", "plan.json"))} == names
    for folder in ("pairs", "scores", "ledger", "dedup", "captions", "codes"):
        for name in (name for name in names if name.startswith(f"{folder}/")):
            assert there[name].read_bytes() == (made / name).read_bytes(), name


def test_the_same_command_has_nothing_to_do(place):
    folder, _ = place
    done = pipeline_here("run", "--stage", "all", "--recipe", folder / "recipe.toml")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("nothing to do, all ") == 3


@pytest.mark.parametrize("words", [("why", URL.format(3)), ("whatif",)])
def test_questions_have_the_answers_of_a_run_on_a_disk(words, place, made):
    _, root = place
    there, here = (pipeline_here(*words, "--out", run) for run in (root, made))
    assert (there.exit_code, here.exit_code) == (0, 0), there.output
    assert there.stdout.replace(str(root), str(made)) == here.stdout


def test_it_is_whole_shown_reported_and_exported(place):
    folder, root = place
    assert f"{root}: whole; " in pipeline_here("verify", root, "--samples").stdout
    assert pipeline_here("report", "--out", root).stdout == f"report: {root}/report.html\n"
    assert (root / "report.html").read_bytes().startswith(b"<!DOCTYPE html>")
    sheet = folder / "sheet.png"
    shown = pipeline_here("show", "codes", root / "codes" / "pretrain" / "00000.tar", "--sheet", sheet)
    assert (shown.exit_code, sheet.is_file()) == (0, True), shown.output
    exported = pipeline_here("export", "llamagen", root, "--to", folder / "llamagen")
    assert "21 lines, 21 pictures" in exported.stdout


def test_a_gpt_is_trained_on_its_codes_and_drawn_from(place, capsys):
    _, root = place
    words = [*(word for setting in SMALL for word in ("--set", setting)), "--out", str(root)]
    assert train(["--recipe", f"{root}/recipe.toml", *words, "--set", "train.steps=2"]) == 0
    assert train(["--recipe", f"{root}/recipe.toml", *words]) == 0, capsys.readouterr().err
    assert f"going on from step 2 ({root}/train/pretrain/checkpoints/0000002)" in capsys.readouterr().out
    there = root / "train" / "pretrain"
    assert [json.loads(line)["step"] for line in there.joinpath("metrics.jsonl").open()] == [1, 2, 3, 4]
    for name in ("samples/0000004.png", "checkpoints/0000004/model.safetensors", "checkpoints/latest"):
        assert there.joinpath(name).is_file()


def test_nothing_of_it_lies_here(place):
    folder, root = place
    assert list((folder / "here").iterdir()) == []
    assert not list((folder / "scratch").glob("upload-*"))
    assert [path.name for path in root.rglob(".tmp-*")] == []
