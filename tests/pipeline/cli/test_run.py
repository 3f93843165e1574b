"""pipeline/cli/run.py: what `pipeline run` refuses before any work, and which failed fetches it asks again."""

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.errors import WrongUse
from pipeline.cli.run import retry_reasons, run_stages
from pipeline.execution.run_folder import recipe_of_run
from pipeline.recipes.schema import RecipeError
from pipeline.stages.manifest import TooManyLosses
from pipeline.stages.run import StageOptions
from tests.support.keep_runs import without_beam


def invoke(*args):
    return CliRunner().invoke(app, ["run", *map(str, args)])


def test_the_option_gives_reasons_in_the_order_given_each_once():
    assert retry_reasons(None, "caption", ()) == ()
    assert retry_reasons(["tls", "http_5xx", "tls"], "filter", ()) == ("tls", "http_5xx")
    assert retry_reasons(["dns,timeout"], "all", ("fetch", "decide")) == ("dns", "timeout")
    assert "http_429" in retry_reasons(["transient"], "filter", ())
    assert "http_404" not in retry_reasons(["transient"], "filter", ())


def test_reasons_are_asked_again_only_where_pictures_are_fetched():
    with pytest.raises(WrongUse, match="belongs to --stage filter, where pictures are fetched; got --stage caption"):
        retry_reasons(["dns"], "caption", ())
    with pytest.raises(WrongUse, match="needs the step fetch; got --step score,decide"):
        retry_reasons(["dns"], "filter", ("score", "decide"))
    with pytest.raises(RecipeError, match="'size': no such reason of fetch"):
        retry_reasons(["size"], "filter", ())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--stage", "filter", "--retry-failed"], "requires an argument"),
        (["--retry-failed", "--stage", "filter"], "wants a word: transient"),
        (["--retry-failed=", "--stage", "filter"], "wants a word: transient"),
        (["--stage", "filter", "--retry-failed", "size"], "no such reason of fetch; choices: animated, "),
        (["--stage", "caption", "--retry-failed", "dns"], "belongs to --stage filter"),
        (["--stage", "train"], "no such stage; choices: filter, caption, pretokenize, all"),
        (["--stage", "filter", "--runner", "cloud"], "no such runner; choices: local, flink, "),
        (["--stage", "filter", "--step", " ,"], "names no step"),
        (["--stage", "filter", "--retry-failed", "dns", "timeout"], "'timeout': a word that belongs to no option"),
        (["--stage", "filter", "--recipe", ""], "is empty; leave the option out"),
        (["--stage", "filter", "--out", " "], "is empty; leave the option out"),
        (["--stage", "filter", "--limit", "0"], "--limit"),
        (["--stage", "filter", "--recipe", "nowhere.toml", "--dry-run"], "nowhere.toml"),
    ],
)
def test_wrong_uses_end_with_2_before_any_work(words, says):
    done = invoke(*words)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert says in " ".join(done.stderr.replace("│", " ").split())


def test_a_stage_that_is_done_says_so_and_more_losses_than_allowed_come_behind_its_figures(run, monkeypatch, capsys):
    recipe = recipe_of_run(run)
    with without_beam():
        run_stages(recipe, ("filter",), StageOptions())
    assert "filter: nothing to do, all " in capsys.readouterr().out

    def lose(*_):
        raise TooManyLosses("lost 3 of 4 files")

    monkeypatch.setattr("pipeline.stages.manifest.check_losses", lose)
    with without_beam(), pytest.raises(TooManyLosses):
        run_stages(recipe, ("filter",), StageOptions())
    assert "rows in" in capsys.readouterr().out


def test_the_command_ends_with_3_for_too_many_losses_and_130_when_stopped(run, monkeypatch):
    words = ["--stage", "filter", "--recipe", run / "recipe.toml", "--out", run, "--dry-run"]
    for error, code in ((TooManyLosses("lost 3 of 4 files"), 3), (KeyboardInterrupt(), 130)):

        def end(*_, error=error):
            raise error

        monkeypatch.setattr("pipeline.stages.run.run_stage", end)
        done = invoke(*words)
        assert (done.exit_code, "Traceback" in done.output) == (code, False), done.output
    assert done.stderr.endswith("stopped; finished shards stay. Go on with the same command.\n")
