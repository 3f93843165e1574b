"""whatif equals a rerun with the same --set where every needed row was fetched, and shows bounds where rows never
were."""

import json
import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.analysis.whatif import ask
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from tests.support.commands import pipeline_here
from tests.support.filter_runs import run_filter
from tests.support.paths import ROOT
from tests.support.small_web import FETCHED, write_recipe

TEXT = (
    FETCHED
    + """
[filter]
rules = [
    {{ use = "size", min_side = 64 }},
    {{ use = "text", min_words = 2 }},
    {{ use = "similarity", column = "similarity", min = 0.3 }},
    {{ use = "watermark", column = "pwatermark", max = 0.9 }},
]
[dedup]
radius = 10
[tier.broad]
size = 64
rules = [{{ use = "aesthetic", model = "v1", min = 4.0 }}]
[tier.fine]
size = 64
rules = [{{ use = "size", min_side = 90 }}, {{ use = "aesthetic", model = "v1", min = 6.0 }}]
[input.columns]
aesthetic_v1 = "AESTHETIC"
"""
)


def rows():
    """Yield URL, TEXT, WIDTH, HEIGHT, similarity, pwatermark, AESTHETIC: twins, copies with other values, nulls,
    faults."""
    for n in range(24):
        yield (
            f"http://pictures.test/{n}.jpg",
            f"picture number {n}",
            96,
            96,
            0.25 + n % 7 / 40,
            n % 5 / 5,
            3.5 + n % 8 / 2,
        )
    yield "http://pictures.test/twin.jpg", "twin of number three", 96, 96, 0.5, 0.1, 7.5
    yield "http://pictures.test/3.jpg", "number three once more", 96, 96, 0.31, 0.75, 5.0
    for n in (1, 4, 6, 6):  # copies: the same, a better one, a worse one and the same again
        yield (
            f"http://pictures.test/{n}.jpg",
            f"picture number {n}",
            96,
            96,
            0.25 + n % 7 / 40 + (n == 4) / 10,
            n % 5 / 5,
            3.5 + n % 8 / 2,
        )
    yield "http://pictures.test/4.jpg", "picture number 4", 96, 96, 0.25 + 4 / 40, 4 / 5, 5.5
    yield "http://pictures.test/30.jpg", "a small one", 50, 50, 0.4, 0.0, 9.0
    yield "http://pictures.test/31.jpg", "unlike", 96, 96, 0.4, 0.0, 9.0
    yield "http://pictures.test/32.jpg", "no score at all", 96, 96, 0.4, None, 9.0
    yield "http://pictures.test/33.jpg", "no beauty known", 96, 96, 0.4, 0.2, None
    yield "http://pictures.test/none.jpg", "not there", 96, 96, 0.4, 0.2, 9.0
    yield "http://pictures.test/page.jpg", "a page instead", 96, 96, 0.4, 0.2, 9.0
    yield "http://pictures.test/small.jpg", "smaller than it says", 96, 96, 0.4, 0.2, 9.0
    yield "nothing", "not an address", 96, 96, 0.4, 0.2, 9.0


@pytest.fixture(scope="module")
def place(tmp_path_factory, web):
    folder = tmp_path_factory.mktemp("whatif")
    (folder / "in").mkdir()
    names = ("URL", "TEXT", "WIDTH", "HEIGHT", "similarity", "pwatermark", "AESTHETIC")
    pq.write_table(
        pa.table(dict(zip(names, map(list, zip(*rows(), strict=True)), strict=True))),
        folder / "in" / "a.parquet",
        row_group_size=9,
    )
    recipe = write_recipe(folder / "recipe.toml", web, folder / "in", folder / "run", TEXT)
    run_filter(recipe, folder / "run")
    return recipe, folder / "run"


def asked(place, *sets):
    recipe, root = place
    return ask(load_recipe(recipe, [*sets, f'output.root="{root}"']))


EXACT = [
    [],
    ["tier.broad.rules.aesthetic.min=5.0"],
    ["tier.broad.rules.aesthetic.min=3.0"],
    ["tier.fine.rules.aesthetic.min=3.0", "tier.fine.rules.size.min_side=64"],
    ["tier.fine.rules.aesthetic.min=7.4"],
    ["tier.broad.rules.aesthetic.min=8.0"],
    ["filter.rules.similarity.min=0.33"],
    ["filter.rules.similarity.min=0.36"],
    ["filter.rules.watermark.max=0.6"],
    ["filter.rules.watermark.max=0.7", "filter.rules.similarity.min=0.34", "tier.broad.rules.aesthetic.min=4.5"],
    ["filter.rules.size.min_side=97"],
    ["filter.rules.text.min_words=4"],
    ["tier.broad.rules.aesthetic.model=v1", 'tier.broad.rules=[{use="text", min_words=4}]'],
]


@pytest.mark.parametrize("sets", EXACT, ids=lambda sets: " ".join(sets) or "nothing")
def test_equals_a_rerun(place, tmp_path, sets):
    answer = asked(place, *sets)
    recipe, root = place
    shutil.copytree(root, tmp_path / "run")
    made = run_filter(recipe, tmp_path / "run", *sets)
    assert answer.open == {}
    assert (answer.then.rows_in, answer.then.kept, answer.then.tiers) == (made.rows_in, made.kept, made.tiers)
    if answer.exact:
        assert answer.then.dropped == made.dropped
    assert sum(answer.then.dropped.values()) == sum(made.dropped.values())


def test_another_order_of_tiers_equals_a_rerun(place, tmp_path, web):
    _, root = place
    head, broad, fine = TEXT.partition("[tier.broad]")[0], *TEXT.partition("[tier.broad]")[2].split("[tier.fine]")
    fine, columns = fine.split("[input.columns]")
    text = f"{head}[tier.fine]{fine}[tier.broad]{broad}[input.columns]{columns}"
    recipe = write_recipe(tmp_path / "other.toml", web, root.parent / "in", root, text)
    answer = ask(load_recipe(recipe))
    shutil.copytree(root, tmp_path / "run")
    made = run_filter(recipe, tmp_path / "run")
    assert (answer.then.kept, answer.then.dropped, answer.then.tiers) == (made.kept, made.dropped, made.tiers)
    assert "tiers: broad, fine -> fine, broad" in answer.changed


@pytest.mark.parametrize(
    ("sets", "opened"),
    [
        (["filter.rules.size.min_side=40"], {"size"}),
        (["filter.rules.text.min_words=1"], {"text"}),
        (["filter.rules.similarity.min=0.2"], {"similarity"}),
        (["filter.rules.similarity.min=0.2", "tier.broad.rules.aesthetic.min=5.0"], {"similarity"}),
        (['filter.rules=[{use="size", min_side=64}]'], {"similarity", "text", "missing_value"}),
    ],
)
def test_rows_that_were_never_fetched_are_bounds(place, tmp_path, sets, opened):
    answer = asked(place, *sets)
    recipe, root = place
    shutil.copytree(root, tmp_path / "run")
    made = run_filter(recipe, tmp_path / "run", *sets)
    assert not answer.exact
    assert set(answer.open) == opened
    assert answer.then.kept <= made.kept <= answer.most["kept"] == answer.then.kept + sum(answer.open.values())
    for tier, count in made.tiers.items():
        assert answer.then.tiers[tier] <= count <= answer.most[tier]
    assert answer.then.rows_in == answer.then.kept + sum(answer.then.dropped.values()) + sum(answer.open.values())


def whatif(place, *args):
    return pipeline_here("whatif", "--out", place[1], *args)


def test_the_command_prints_both_funnels_and_writes_nothing(place):
    before = {path: path.stat().st_mtime_ns for path in place[1].rglob("*")}
    told = whatif(place, "--set", "tier.broad.rules.aesthetic.min=5.0", "--set", "filter.rules.size.min_side=40")
    assert told.exit_code == 0, told.output
    assert "tier.broad.rules.aesthetic.min: 4.0 -> 5.0" in told.stdout
    assert "1 rows might come in that were never fetched (1 dropped now as size)" in told.stdout
    assert "all of them pass what is unknown" in told.stdout
    assert {path: path.stat().st_mtime_ns for path in place[1].rglob("*")} == before
    made = json.loads(whatif(place, "--json").stdout)
    assert made["exact"] is True
    assert made["now"] == made["then"]
    assert made["changed"] == []


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        ("dedup.radius=3", "dedup.radius differs"),
        ("tier.fine.size=128", "fetch.store_side"),
        ("fetch.max_bytes=10", "fetch.max_bytes"),
        ("score.use=['conse']", "score"),
        ("input.sample=0.5", "sample"),
        ("tier.fine.rules.beauty.min=1", "no rule 'beauty'"),
        ("tier.fine.rules.size.min=1", "no threshold 'min'"),
    ],
)
def test_what_cannot_be_asked(place, sets, says):
    with pytest.raises(RecipeError, match=says):
        asked(place, sets)


def test_a_folder_without_fates(tmp_path, place):
    recipe, _ = place
    with pytest.raises(RecipeError, match="filter has not run to its end"):
        ask(load_recipe(recipe, [f'output.root="{tmp_path}"']))


def test_no_model_and_no_torch(place):
    code = f"""
import sys
from pipeline.recipes.schema import RecipeError
from pipeline.recipes.load import load_recipe
from pipeline.analysis.whatif import ask
ask(load_recipe({str(place[0])!r}, ['output.root="{place[1]}"', "filter.rules.similarity.min=0.36"]))
print([name for name in ("torch", "open_clip", "transformers", "apache_beam", "onnxruntime") if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert told.stdout.strip() == "[]", told.stdout + told.stderr
