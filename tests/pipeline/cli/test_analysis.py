"""pipeline/cli/analysis.py: questions to a run, and how they end where there is no answer."""

import json

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.analysis import cores, register
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


@pytest.mark.parametrize(
    "words",
    [
        ("whatif",),
        ("whatif", "--json", "--set", "filter.rules.size.min_side=100"),
        ("why", URL.format(3)),
        ("why", URL.format(20), "--json"),
        ("why", "f" * 32),
    ],
)
def test_of_a_run_in_a_store_the_answers_are_the_same(words, made, stored):
    there, here = (CliRunner().invoke(app, [*words, "--out", str(root)]) for root in (stored, made))
    assert here.exit_code == there.exit_code
    assert here.stdout == there.stdout.replace(str(stored), str(made))
    assert here.stderr == there.stderr.replace(str(stored), str(made))


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


def test_plan_rehearses_a_run_of_another_size_and_writes_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = (run / "plan.json").read_bytes() if (run / "plan.json").exists() else None
    asked = ["plan", "--out", str(run), "--rows", "600e6", "--workers", "20", "--gpus", "8"]
    none = CliRunner().invoke(app, asked)
    assert (none.exit_code, "bench_scale.py --rows 1e6 3e6 --out scale.json" in none.stderr) == (2, True)
    counts = {"input": 1000, "planned": 500, "fetched": 300, "kept": 50, "packed": 50}
    figures = dict.fromkeys(("cpu_s", "wall_s", "peak_mib", "read", "written", "files", "spilled"), 1)
    one = {"mode": "rows", "kind": "work", "name": "decide", "workers": 1, "counts": counts, **figures}
    measured = [{**one, "input": size, "rows": size} for size in (1000, 3000)]
    (tmp_path / "scale.json").write_text(json.dumps({"machine": {"cores": 2}, "measured": measured}))
    said, told = CliRunner().invoke(app, asked), CliRunner().invoke(app, [*asked, "--json"])
    assert (said.exit_code, told.exit_code) == (0, 0)
    assert "rehearsal: 600,000,000 rows, 20 workers, 8 GPUs" in said.stdout
    rated = CliRunner().invoke(app, [*asked, "--rate", "fetch=50", "--rate", "score=700"])
    assert "score: 700 rows/s a GPU, given by --rate" in rated.stdout
    assert CliRunner().invoke(app, [*asked, "--rate", "fetch"]).exit_code == 2
    assert json.loads(told.stdout)["expected"]["input"] == 600_000_000
    assert before == ((run / "plan.json").read_bytes() if (run / "plan.json").exists() else None)


def test_cores_are_counted():
    assert cores() >= 1
