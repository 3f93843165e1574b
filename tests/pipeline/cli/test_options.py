"""pipeline/cli/options.py: which recipe a command takes, and for which run folder."""

import pytest

from pipeline.cli.options import open_recipe, open_run, recipe_of
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
