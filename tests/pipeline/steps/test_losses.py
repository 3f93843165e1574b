"""What select could not read: files that do not open, files without a URL, each named once."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.execution.in_flight import InFlight
from pipeline.inputs.files import look_at_inputs
from pipeline.inputs.input_list import register_files
from pipeline.recipes.load import parse_recipe
from pipeline.steps.losses import lost_input
from pipeline.steps.select import Select


@pytest.fixture
def lost(tmp_path):
    """Return a function: file name -> its URLs (None: no table at all), rows of a unit -> (the losses, the counts)."""

    def look(files, unit_rows=100, **more):
        (tmp_path / "in").mkdir()
        for name, urls in files.items():
            path = tmp_path / "in" / name
            if urls is None:
                path.write_bytes(b"no table")
            else:
                pq.write_table(pa.table({"URL": urls}), path, row_group_size=2)
        values = {"files": f"{tmp_path}/in/*.parquet", "unit_rows": unit_rows, **more}
        recipe = parse_recipe({"input": values, "output": {"root": f"{tmp_path}/run"}, "tier": {"a": {"size": 64}}})
        register_files(recipe.root, look_at_inputs(recipe))
        step = Select(recipe, recipe.root)
        for unit in step.units():
            step.journal.record(step.open().run(unit, InFlight()))
        return [(entry["kind"], entry["name"], entry.get("rows")) for entry in lost_input(step)]

    return look


GOOD = ["http://a.test/1.jpg", None, "no URL"]


def test_a_file_that_does_not_open_and_one_without_a_url_are_named_once_each(lost):
    no_urls = pa.array([{"a": "http://a.test/1.jpg"}] * 3)
    files = {"a.parquet": GOOD, "b.parquet": None, "c.parquet": [None, "", "a.test"], "d.parquet": no_urls}
    assert lost(files) == [("file", "b.parquet", None), ("urls", "c.parquet", 3), ("urls", "d.parquet", 3)]


def test_a_file_of_several_units_is_lost_only_where_all_of_them_are(lost):
    """Units of two rows: the first of a.parquet has no URL, its second one has."""
    files = {"a.parquet": [None, None, "http://a.test/1.jpg"], "b.parquet": [None] * 3}
    assert lost({name: pa.array(urls, pa.string()) for name, urls in files.items()}, 2) == [("urls", "b.parquet", 3)]


def test_an_empty_table_lost_nothing(lost):
    assert lost({"a.parquet": pa.array([], pa.string())}) == []


def test_a_few_rows_of_a_sample_do_not_say_that_a_file_has_no_url(lost):
    """Of 100 rows without a URL about 5 are chosen, and of 1,000 about 50."""
    texts = {"a.parquet": 100, "b.parquet": 1000}
    files = {name: pa.array([f"no URL {name} {n}" for n in range(count)]) for name, count in texts.items()}
    found = lost(files, sample=0.05)
    assert [name for _, name, _ in found] == ["b.parquet"]
    assert 20 < found[0][2] < 100
