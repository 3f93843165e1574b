"""plan: intervals by hand, a sample that predicts the run, no URL touched, and predicted beside actual afterwards."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.analysis.forecast import beside, forecast, lines, wilson, write_forecast
from pipeline.cli.summary import print_summary
from pipeline.inputs.convert import with_tables
from pipeline.inputs.files import look_at_inputs
from pipeline.inputs.input_list import register_files
from pipeline.recipes.load import load_recipe, parse_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.stages.run import Finished
from tests.support.filter_runs import run_filter
from tests.support.small_web import write_recipe


def test_wilson_by_hand():
    share = wilson(8, 10)  # Wilson (1927), worked out: centre 0.7166, half width 0.2265
    assert (share.low, share.mid, share.high) == (pytest.approx(0.4902, abs=1e-4), 0.8, pytest.approx(0.9433, abs=1e-4))
    assert (wilson(0, 10).low, wilson(10, 10).high) == (pytest.approx(0.0), pytest.approx(1.0))
    assert (wilson(0, 0).low, wilson(0, 0).high, wilson(0, 0).source) == (0.0, 1.0, "unknown")


@pytest.fixture
def recipe(tmp_path, web):
    (tmp_path / "in").mkdir()
    rows = 2000
    table = pa.table(
        {
            "URL": [f"http://pictures.test/{n % 40}.jpg?{n}" for n in range(rows)],
            "TEXT": ["two words" if n % 4 else "one" for n in range(rows)],
            "WIDTH": [96 if n % 5 else 20 for n in range(rows)],
            "HEIGHT": [96] * rows,
        }
    )
    pq.write_table(table, tmp_path / "in" / "a.parquet", row_group_size=100)
    return write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "run")


def test_a_sample_predicts_select_and_touches_no_url(recipe, web):
    before = len(web.hits)
    made = forecast(load_recipe(recipe), 2000)
    assert len(web.hits) == before
    assert (made.rows, made.sampled) == (2000, 2000)
    assert made.steps["select"]["mid"] == 0.6  # 4 of 5 wide enough, 3 of 4 of these with two words
    assert made.steps["select"]["low"] < 0.6 < made.steps["select"]["high"]
    assert made.dropped["size"]["mid"] == 400
    assert (made.steps["fetch"]["low"], made.steps["fetch"]["high"], made.steps["fetch"]["source"]) == (
        0.5,
        0.75,
        "assumed",
    )
    assert (
        made.dropped["fetch"]["low"] < made.dropped["fetch"]["mid"] == 450 < made.dropped["fetch"]["high"]
    )  # 2000 x 0.6 x 0.375
    assert made.kept["low"] < made.kept["mid"] < made.kept["high"] <= 2000
    assert set(made.stages) == {"select", "fetch", "score", "caption", "pretokenize"}
    assert made == forecast(load_recipe(recipe), 2000) or made.steps == forecast(load_recipe(recipe), 2000).steps
    small = forecast(load_recipe(recipe), 300)
    assert 200 <= small.sampled <= 600
    assert small.steps["select"]["low"] <= 0.6 <= small.steps["select"]["high"]


def test_a_rule_that_only_a_scorer_can_answer_is_unknown(recipe):
    sets = ['score.use=["aesthetic_v2"]', 'score.clip.weights="stand-in"', 'score.aesthetic_v2.weights="stand-in"']
    sets += ['tier.pretrain.rules=[{use="aesthetic", min=5.0}]']
    made = forecast(load_recipe(recipe, sets), 500)
    assert made.steps["pretrain.aesthetic"]["source"] == "unknown"
    assert (made.steps["pretrain.aesthetic"]["low"], made.steps["pretrain.aesthetic"]["high"]) == (0.0, 1.0)
    assert made.tiers["pretrain"]["low"] == 0


def test_predicted_stands_beside_actual(recipe, tmp_path, capsys):
    sets = ["input.limit=60"]
    read = load_recipe(recipe, sets)
    made = forecast(read, 500)
    assert "shares" not in "\n".join(lines(made, read))
    write_forecast(read.root, made)
    manifest = run_filter(recipe, read.root, *sets)
    print_summary(read, Finished(manifest, made=1, before=0, seconds=1.0))
    assert "predicted kept" in capsys.readouterr().out
    found = {
        what: (predicted, actual)
        for what, predicted, actual in beside(
            read.root, manifest.rows_in, manifest.kept, manifest.dropped, manifest.tiers
        )
    }
    assert found["kept"][1] == f"{manifest.kept:,}"
    assert found["rows in"][0] == "60"
    from pipeline.report.render import write_report

    assert "Predicted and actual" in write_report(read.root).read_text()


def test_a_table_in_text_is_planned_once_filter_has_read_it(tmp_path):
    """Its rows were taken for none, and the rules' shares were not found."""
    (tmp_path / "a.csv").write_text("URL,TEXT\n" + "".join(f"http://a.test/{n}.jpg,words\n" for n in range(30)))
    given = {"input": {"files": f"{tmp_path}/a.csv"}, "output": {"root": f"{tmp_path}/run"}}
    read = parse_recipe({**given, "filter": {"rules": [{"use": "text", "min_words": 1}]}, "tier": {"a": {"size": 64}}})
    with pytest.raises(RecipeError, match=r"plan: a\.csv is no Parquet table; .* --step select; plan after that"):
        forecast(read, 20)
    register_files(read.root, with_tables(read, look_at_inputs(read)))
    assert forecast(read, 20).rows == 30
