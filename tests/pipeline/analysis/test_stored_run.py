"""What a finished filter stage says of itself, and which questions it cannot answer."""

import pyarrow as pa
import pytest

from manifests.files import write_table
from pipeline.analysis.stored_run import HELD, Shard, check_askable, open_stored, typed
from pipeline.execution.run_folder import recipe_of_run
from pipeline.recipes.schema import RecipeError


def test_shards_of_a_run_and_the_rules_that_it_ran_with(made):
    stored = open_stored(made, "whatif")
    assert [shard.name for shard in stored.shards] == [f"{n:05d}" for n in range(6)]
    assert sum(shard.rows for shard in stored.shards) == 52
    assert [rule["use"] for rule in stored.rules_before["filter"]] == ["size", "text"]
    assert [name for name, _ in stored.rules_before["tiers"]] == ["pretrain", "finetune"]
    first = stored.shards[0]
    assert first.finals(["uid", "no such column"]).column_names == ["uid"]
    assert first.selected(["uid"])["uid"].equals(first.finals(["uid"])["uid"])


def test_a_folder_without_fates_and_one_that_has_changed_since(made, run):
    with pytest.raises(RecipeError, match=r"why: filter has not run to its end in .*; first: pipeline run"):
        open_stored(made / "ledger", "why")
    note = next((run / "manifests" / "journal" / "dedup").glob("*step*"))
    note.unlink()
    with pytest.raises(RecipeError, match="does not say how dedup ran"):
        open_stored(run, "whatif")


def test_rules_may_be_asked_and_other_settings_not(made):
    stored, recipe = open_stored(made, "whatif"), recipe_of_run(made)
    check_askable(recipe, stored)
    rules = recipe.filter.model_copy(update={"rules": [{"use": "size", "min_side": 70}]})
    check_askable(recipe.model_copy(update={"filter": rules}), stored)
    radius = recipe.dedup.model_copy(update={"radius": 3})
    with pytest.raises(RecipeError, match=r"dedup\.radius differs .* dedup would have to run again"):
        check_askable(recipe.model_copy(update={"dedup": radius}), stored)


def test_columns_that_the_ledger_holds_of_dropped_rows(tmp_path):
    path = tmp_path / "s.parquet"
    shard = Shard("s", 1, path, path)
    write_table(path, pa.table({"a": [1]}))
    assert shard.held() == frozenset()
    write_table(path, pa.table({"a": [1]}).replace_schema_metadata({HELD: b"width,height"}))
    assert shard.held() == {"width", "height"}


def test_a_column_that_only_a_scorer_knows_is_left_out_of_the_selected_rows(tmp_path):
    path = tmp_path / "s.parquet"
    write_table(path, pa.table({"a": [1]}))
    assert Shard("s", 1, path, path).selected(["a", "stock_mark"]).column_names == ["a"]


def test_typed_casts_what_is_there_and_fills_what_is_not():
    table = pa.table({"width": pa.chunked_array([[1], [2]], pa.int64()), "mine": ["a", "b"]})
    batch = typed(table, ("width", "height", "mine"))
    assert batch.to_pydict() == {"width": [1, 2], "height": [None, None], "mine": ["a", "b"]}
    assert [str(field.type) for field in batch.schema] == ["int32", "int32", "string"]
