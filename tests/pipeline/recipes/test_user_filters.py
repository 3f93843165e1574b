"""Filters of the user's own files: used in driver and workers, part of keys and manifest, blamed with file and line."""

import hashlib
import json
from dataclasses import asdict

import pyarrow as pa
import pytest

from filters.base import known_filters
from pipeline.execution.in_flight import InFlight
from pipeline.execution.job import Job
from pipeline.recipes.load import load_recipe, parse_recipe
from pipeline.recipes.rules import build_rules
from pipeline.recipes.schema import RecipeError
from pipeline.recipes.user_filters import user_files
from pipeline.steps.decide import Decide
from pipeline.steps.select import Select
from tests.support.commands import final, manifest, pipeline_here, run_here
from tests.support.small_web import write_input, write_recipe

HEAD = """from dataclasses import dataclass
import pyarrow as pa
import pyarrow.compute as pc
from filters.base import Rule, register

@register("NAME")
@dataclass(frozen=True, kw_only=True)
class Mine(Rule):
    inputs = ("url", "text")
    ending: str = "7.jpg"

    def keep(self, batch):
        BODY
"""
ENDING = "return pc.invert(pc.ends_with(batch.column('url'), self.ending))"


@pytest.fixture(autouse=True)
def _no_user_filters_afterwards():
    yield
    parse_recipe({"tier": {"all": {"size": 64}}})


def code(body=ENDING, name="ending"):
    return HEAD.replace("NAME", name).replace("BODY", body)


def recipe_of(folder, text, rules='{ use = "ending" }', tier_rules=""):
    (folder / "mine.py").write_text(text)
    path = folder / "recipe.toml"
    path.write_text(
        f'[filter]\npython = ["mine.py"]\nrules = [{rules}]\n[tier.all]\nsize = 64\nrules = [{tier_rules}]\n'
    )
    return path


def keys(recipe, root):
    return [step(recipe, root).own_key for step in (Select, Decide)]


def test_it_is_a_filter_like_any_other_and_leaves_with_its_recipe(tmp_path):
    recipe = load_recipe(recipe_of(tmp_path, code(), '{ use = "ending", ending = "x", name = "no_x" }'))
    (rule,) = build_rules(recipe).everywhere
    assert (rule.name, rule.inputs) == ("no_x", ("url", "text"))
    batch = pa.RecordBatch.from_pydict({"url": ["ax", "b", None], "text": ["", "", ""]})
    assert rule.keep(batch).to_pylist() == [False, True, None]
    parse_recipe({"tier": {"all": {"size": 64}}})
    assert "ending" not in known_filters()
    assert build_rules(recipe).everywhere[0].name == "no_x"  # and comes back


def test_files_are_named_with_the_sha256_of_what_was_run(tmp_path):
    load_recipe(recipe_of(tmp_path, code()))
    expected = [("mine.py", hashlib.sha256(code().encode()).hexdigest())]
    assert user_files({"ending", "size"}) == expected
    assert user_files({"size", "nowhere"}) == []
    (tmp_path / "mine.py").write_text(code("return None"))
    assert user_files({"ending"}) == expected  # not what lies there now
    parse_recipe({"tier": {"all": {"size": 64}}})
    assert user_files({"ending"}) == []


def test_a_resolved_recipe_finds_the_file_from_anywhere(tmp_path, monkeypatch):
    plain = load_recipe(recipe_of(tmp_path, code())).plain()
    monkeypatch.chdir("/")
    assert parse_recipe(json.loads(json.dumps(plain))).filter.python == [str(tmp_path / "mine.py")]


def test_beside_the_recipe_comes_before_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "mine.py").write_text(code())
    monkeypatch.chdir(tmp_path / "here")
    path = recipe_of(tmp_path / "there", code())
    assert load_recipe(path).filter.python == [str(tmp_path / "there" / "mine.py")]
    (tmp_path / "there" / "mine.py").unlink()
    assert load_recipe(path).filter.python == [str(tmp_path / "here" / "mine.py")]
    assert load_recipe(path, ['filter.python="mine.py"']).filter.python == [str(tmp_path / "here" / "mine.py")]


def test_its_content_is_in_the_keys_of_the_steps_that_use_it_and_its_folder_is_not(tmp_path):
    (tmp_path / "b").mkdir()
    first = keys(load_recipe(recipe_of(tmp_path, code())), tmp_path)
    assert keys(load_recipe(recipe_of(tmp_path / "b", code())), tmp_path) == first
    changed = keys(load_recipe(recipe_of(tmp_path, code() + "# another thought\n")), tmp_path)
    assert all(a != b for a, b in zip(first, changed, strict=True))

    def in_tier(text):
        return keys(load_recipe(recipe_of(tmp_path, text, '{ use = "size" }', '{ use = "ending" }')), tmp_path)

    before, after = in_tier(code()), in_tier(code() + "# another\n")
    assert before[0] == after[0]
    assert before[1] != after[1]
    without = [
        keys(load_recipe(recipe_of(tmp_path, text, '{ use = "size" }')), tmp_path)
        for text in (code(), code() + "# another\n")
    ]
    assert without[0] == without[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = (\n", r"mine\.py, line 1: SyntaxError"),
        ("\n\nimport nowhere_at_all\n", r"mine\.py, line 3: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise SystemExit(3)\n", r"mine\.py, line 1: SystemExit"),
        ("x = 1\n", "registers no filter"),
        (code(name="size"), r"mine\.py, line 6: ValueError: two filters are called 'size'"),
        (code().replace('("url", "text")', '"url"'), "needs `inputs`"),
        (code().replace("@dataclass(frozen=True, kw_only=True)\n", ""), "put @dataclass"),
        (code().replace('"url", "text"', '"colour",'), "reads 'colour', which neither the input has nor a head"),
        (code(name="endings"), "no filter 'ending'; known filters: .*endings"),
    ],
)
def test_a_faulty_file_is_a_fault_of_the_recipe(tmp_path, text, says):
    parse_recipe({"tier": {"all": {"size": 64}}})
    before = known_filters()
    with pytest.raises(RecipeError, match=says):
        load_recipe(recipe_of(tmp_path, text))
    parse_recipe({"tier": {"all": {"size": 64}}})
    assert known_filters() == before


def test_a_class_named_like_a_built_in_one_does_not_take_its_place(tmp_path):
    with pytest.raises(RecipeError, match="two filters are called 'size': Size and Size"):
        load_recipe(recipe_of(tmp_path, code(name="size").replace("class Mine", "class Size")))


def test_a_missing_file(tmp_path):
    path = recipe_of(tmp_path, code())
    (tmp_path / "mine.py").unlink()
    with pytest.raises(RecipeError, match=r"cannot read '.*mine\.py' .*beside the recipe"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return 1 / 0", r"filter 'ending': .*mine\.py, line 13: ZeroDivisionError"),
        ("return pa.array([True])", "keep gave 1 of bool, wanted true, false or null for each of 2 rows"),
        ("return batch.column('url')", "keep gave 2 of string"),
        ("return None", "keep gave None"),
    ],
)
def test_what_goes_wrong_in_keep_names_file_and_line(tmp_path, body, says):
    (rule,) = build_rules(load_recipe(recipe_of(tmp_path, code(body)))).everywhere
    with pytest.raises(RecipeError, match=says):
        rule.keep(pa.RecordBatch.from_pydict({"url": ["a", "b"], "text": ["", ""]}))


def test_verdicts_may_be_numpy_or_chunked(tmp_path):
    batch = pa.RecordBatch.from_pydict({"url": ["a", "b"], "text": ["", ""]})
    for body in ("return pa.chunked_array([[True], [False]])", "import numpy; return numpy.array([True, False])"):
        (rule,) = build_rules(load_recipe(recipe_of(tmp_path, code(body)))).everywhere
        assert rule.keep(batch).to_pylist() == [True, False]


def recipe_with_endings(folder, web):
    """Write input, filter and recipe: no URL ends with 7.jpg; none of the first tier with 4.jpg."""
    write_input(folder / "in")
    (folder / "mine.py").write_text(code())
    path = write_recipe(folder / "r.toml", web, folder / "in", folder / "run")
    text = path.read_text().replace(
        "[filter]\nrules = [", '[filter]\npython = ["mine.py"]\nrules = [{ use = "ending" }, '
    )
    four = '{ use = "ending", ending = "4.jpg", name = "four" }'
    path.write_text(text.replace('rules = [{ use = "aspect"', f'rules = [{four}, {{ use = "aspect"'))
    return path


def test_in_a_run(tmp_path, web):
    path, root = recipe_with_endings(tmp_path, web), tmp_path / "run"
    run_here(path, "filter")
    made = manifest(root, "filter")
    # in a.parquet 7.jpg and 17.jpg; in the readable half of b.parquet nothing ends so
    assert made.dropped["ending"] == 2
    assert {"name": "mine.py"}.items() <= made.inputs[-1].items()
    rows = final(root).to_pylist()
    assert {row["reason"] for row in rows if str(row["url"]).endswith("7.jpg") and row["uid"]} == {"ending"}
    four = next(row for row in rows if row["url"] == "http://pictures.test/4.jpg")
    assert (four["fate"], four["tiers"]) == ("kept", ["finetune"])
    told = pipeline_here("why", four["uid"].hex(), "--out", root)
    assert "pretrain: four ending = '4.jpg': fails" in told.output
    assert "nothing to do" in run_here(path, "filter").output
    assert_a_worker_drops(load_recipe(path), root, ending=2)
    (tmp_path / "mine.py").write_text(code("1 / 0; " + ENDING))
    failed = run_here(path, "filter", code=2)
    assert "mine.py, line 13: ZeroDivisionError" in failed.output


def assert_a_worker_drops(recipe, root, **dropped):
    """Do the first step's units as a worker does, which knows no filter of the user's before it reads its job."""
    units = [asdict(unit) for unit in Select(recipe, root).units()]
    Job(f"{Select.__module__}:{Select.__qualname__}", str(root), recipe.plain(), units, "").write(root / "job")
    parse_recipe({"tier": {"all": {"size": 64}}})
    assert set(dropped).isdisjoint(known_filters())
    job = Job.read(root / "job")
    worker = job.make_step().open()
    records = [worker.run(unit, InFlight()) for unit in job.make_units()]
    assert {name: sum(record.dropped.get(name, 0) for record in records) for name in dropped} == dropped
