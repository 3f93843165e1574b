"""pipeline/cli/analysis.py: questions to a run, and how they end where there is no answer."""

import json

import typer
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.analysis import register
from tests.support.removals import URL


def invoke(command, root, *args):
    return CliRunner().invoke(app, [command, "--recipe", str(root / "recipe.toml"), "--out", str(root), *args])


def test_why_tells_a_row_and_ends_with_1_for_one_that_is_not_there(made):
    done = invoke("why", made, URL.format(3))
    assert (done.exit_code, "  fate      kept" in done.stdout, done.stderr) == (0, True, "")
    done = invoke("why", made, "f" * 32)
    assert (done.exit_code, done.stdout, "no row of " in done.stderr) == (1, "", True)


def test_other_rules_are_noted_beside_the_story(made):
    done = invoke("why", made, URL.format(3), "--set", "filter.rules.size.min_side=65")
    assert "note: these are not the rules that" in done.stderr
    assert "note: these" not in done.stdout


def test_whatif_answers_in_a_table_and_refuses_what_stored_values_cannot_say(made):
    done = invoke("whatif", made)
    assert (done.exit_code, "These are the figures that a run with these rules would give." in done.stdout) == (0, True)
    done = invoke("whatif", made, "--set", "filter.rules.nothing.min=3")
    assert (done.exit_code, done.stdout) == (2, "")


def test_three_commands_are_registered():
    commands = typer.Typer()
    register(commands)
    assert sorted(command.callback.__name__ for command in commands.registered_commands) == ["plan", "whatif", "why"]


def test_plan_takes_the_recipe_of_the_run_folder_with_json_and_without(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["plan", "--out", str(run)])
    asked = CliRunner().invoke(app, ["plan", "--out", str(run), "--json"])
    assert f"recipe: {run / 'recipe.toml'}" in said.stderr
    assert (said.exit_code, asked.exit_code, json.loads(asked.stdout)["rows"]) == (0, 0, 52)
    assert json.loads((run / "plan.json").read_text())["rows"] == 52
