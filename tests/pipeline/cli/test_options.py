"""pipeline/cli/options.py: which recipe a command takes, and for which run folder."""

import secrets

import pytest
import typer
from typer.testing import CliRunner

from manifests.store import path_of
from pipeline.cli import app
from pipeline.cli.options import local_path, open_recipe, open_run, recipe_of
from pipeline.recipes.schema import RecipeError


def test_the_named_recipe_is_said_on_stderr_and_out_takes_the_place_of_its_folder(made, tmp_path, capsys):
    recipe = open_recipe(str(made / "recipe.toml"), str(tmp_path / 'a "b"'), ["input.limit=7"])
    assert (recipe.root, recipe.input.limit) == (tmp_path / 'a "b"', 7)
    assert capsys.readouterr() == ("", f"recipe: {made / 'recipe.toml'}\n")


def test_any_name_of_a_folder_is_that_folder(made, tmp_path):
    for name in ("run\U0001f600", "a\x7fb", "back\\slash", "tab\t"):
        assert open_recipe(str(made / "recipe.toml"), str(tmp_path / name), None).root == tmp_path / name


def test_a_question_takes_the_recipe_that_the_run_folder_holds(made, tmp_path, capsys):
    recipe = open_run(None, str(made), ["input.limit=7"])
    assert (recipe.root, recipe.input.limit) == (made, 7)
    assert open_run(str(made / "recipe.toml"), str(tmp_path), None).root == tmp_path
    assert capsys.readouterr() == ("", "")


def test_a_folder_without_a_recipe_has_none(made, tmp_path):
    assert recipe_of(str(made)) == str(made / "recipe.toml")
    assert (recipe_of(str(tmp_path)), recipe_of(None), recipe_of("")) == (None, None, None)


def test_a_fault_of_the_recipe_is_a_recipe_error(made):
    for asking in (open_recipe, open_run):
        with pytest.raises(RecipeError, match="nothing"):
            asking(str(made / "recipe.toml"), None, ["input.nothing=7"])


RUN = "s3://bucket/run"


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--stage", "filter", "--out", RUN),
        ("run", "--stage", "all", "--dry-run", "--out", RUN),
        ("run", "--stage", "filter", "--set", f"output.root={RUN}"),
        ("run", "--stage", "filter", "--recipe", f"{RUN}/recipe.toml"),
        ("run", "--stage", "filter", "--out", "s3://"),
        ("run", "--stage", "filter", "--out", "s3:/bucket/run"),
        ("run", "--stage", "filter", "--out", "file:///bucket/run"),
        ("run", "--stage", "filter", "--out", "nowhere://bucket/run"),
        ("run", "--stage", "filter", "--out", "memory://bucket/run"),
        ("plan", "--out", RUN),
        ("report", "--out", RUN),
        ("whatif", "--out", RUN),
        ("why", "0" * 32, "--out", RUN),
        ("verify", RUN),
        ("repair", RUN),
        ("remove", RUN, "--host", "x.test"),
        ("prune", RUN),
        ("recheck", RUN),
        ("show", "codes", f"{RUN}/codes/pretrain/00000.tar"),
        ("export", "llamagen", RUN, "--to", "out"),
        ("export", "llamagen", RUN, "--to", "s3://bucket/out"),
        ("import", "llamagen", "--codes", "codes", "--size", "256", "--to", RUN),
    ],
)
def test_a_store_that_cannot_be_used_ends_every_command_before_any_work(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # discard: nobody is there
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    done = CliRunner().invoke(app, list(words))
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert "wanted" in done.stderr or "the store cannot be reached" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_path_of_this_machine_is_no_url(tmp_path):
    assert local_path(str(tmp_path)) == tmp_path
    with pytest.raises(typer.BadParameter, match=r"s3://b/x: a URL; wanted a file or folder of this machine"):
        local_path("s3://b/x")


def test_a_question_takes_the_recipe_that_a_run_in_a_store_holds(made):
    root = f"memory://{secrets.token_hex(4)}/run"
    path_of(f"{root}/recipe.toml").write_bytes((made / "recipe.toml").read_bytes())
    assert recipe_of(root) == f"{root}/recipe.toml"
    recipe = open_run(None, root, ["input.limit=7"])
    assert (str(recipe.root), recipe.input.limit) == (root, 7)
