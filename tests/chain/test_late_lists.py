"""Lists of hashes that come after the picture, and rows of a listed URL that were never fetched: nothing is left of
either, in no file of any stage."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.tombstones import read_tombstones
from pipeline.recipes.load import load_recipe
from pipeline.report.render import write_report
from tests.support.filter_runs import final_rows
from tests.support.removals import URL, holding, remove, rerun, uid, whole
from tests.support.small_web import FETCHED, jpeg, picture, write_input, write_recipe

LISTED = """
[filter]
rules = [{{ use = "size", min_side = 64 }}, {{ use = "text", min_words = WORDS }}]
exclude = ["{list}"]
[tier.pretrain]
size = 64
rules = []
"""


def md5_list(folder: Path, *numbers: int) -> Path:
    path = folder / "listed.txt"
    path.write_text("md5\n" + "".join(f"{hashlib.md5(jpeg(picture(n))).hexdigest()}\n" for n in numbers))
    return path


@pytest.fixture
def stored(tmp_path, web):
    """Return recipe and run of all stages, made without a list, with a report."""
    path = write_recipe(tmp_path / "recipe.toml", web, write_input(tmp_path / "in"), tmp_path / "run")
    rerun(tmp_path / "run", recipe=load_recipe(path))
    write_report(tmp_path / "run")
    assert len(holding(tmp_path / "run", [uid(5)], [URL.format(5)])) > 12
    return path, tmp_path / "run"


def saying(root: Path) -> set[str]:
    """Return the files that hold the row but those that may say its uid."""
    found = holding(root, [uid(5)], [URL.format(5)])
    return {name for name in found if not name.startswith("ledger/final/")} - {"tombstones.parquet"}


@pytest.mark.parametrize("settings", [["fetch.max_bytes=40000000"], ["input.limit=1"], ["fetch.shard_rows=5"]])
def test_a_hit_on_a_picture_that_the_run_stores_goes_from_every_stage(stored, tmp_path, settings):
    """What was stored falls out of the plan, or is fetched again: captions, codes, plans and the report go too."""
    path, root = stored
    recipe = load_recipe(path, [f'filter.exclude=["{md5_list(tmp_path, 5)}"]', *settings])
    rerun(root, "filter", recipe=recipe)
    assert saying(root) == set()
    assert holding(root, [], [URL.format(5), "picture number 5 "]) == set()
    assert not (root / "report.html").exists()
    rerun(root, recipe=recipe)
    assert saying(root) == set()
    assert whole(root) == []


@pytest.fixture
def spelled(tmp_path, web):
    """Return a recipe whose input has the listed picture's URL in rows that never reach fetch."""
    rows = [
        (URL.format(7), "a long caption here", 96),
        (URL.format(7), "x", 96),  # too few words
        ("https://pictures.test/a/../7.jpg", "another long caption", 20),  # too small
        (URL.format(7), None, 96),
        (URL.format(8), "a sound row here", 96),
    ]
    (tmp_path / "in").mkdir()
    text = "".join(
        json.dumps(dict(zip(("URL", "TEXT", "WIDTH"), row, strict=True)) | {"HEIGHT": 96}) + "\n" for row in rows
    )
    (tmp_path / "in" / "a.jsonl").write_text(text)
    recipe = (FETCHED + LISTED).replace("*.parquet", "*.jsonl").replace("WORDS", "2")
    recipe = recipe.replace("{list}", str(md5_list(tmp_path, 7)))
    return write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "run", recipe)


def urls_in(root: Path) -> set[str]:
    """Return the files that hold the URL in any spelling."""
    return holding(root, [], [URL.format(7), "/../7.jpg", "a long caption here", "another long caption"])


def test_a_listed_url_goes_with_every_row_that_has_it(spelled, tmp_path, web):
    root = tmp_path / "run"
    rerun(root, "filter", recipe=load_recipe(spelled))
    assert urls_in(root) == set()
    assert Counter(row["reason"] for row in final_rows(root)) == {"removed": 4, None: 1}
    assert whole(root) == []
    asked = Counter(web.hits)
    looser = load_recipe(spelled, ['filter.rules=[{ use = "text", min_words = 1, min_chars = 1 }]'])
    rerun(root, "filter", recipe=looser)
    assert (Counter(web.hits) - asked)["/7.jpg"] == 0  # the tombstone of its URL knows it
    assert urls_in(root) == set()


def test_a_listed_url_goes_from_tables_of_rows_outside_the_limit(spelled, tmp_path):
    root = tmp_path / "run"
    for limit in (2, 3, 4, 5):
        rerun(root, "filter", recipe=load_recipe(spelled, [f"input.limit={limit}"]))
    assert urls_in(root) == set()


def test_remove_by_a_list_takes_every_row_of_the_url(spelled, tmp_path, web):
    root = tmp_path / "run"
    rerun(root, "filter", recipe=load_recipe(spelled, ["filter.exclude=[]"]))
    assert urls_in(root) != set()
    remove(root, lists=[tmp_path / "listed.txt"])
    assert urls_in(root) == set()
    assert whole(root) == []
    row = {"URL": URL.format(7), "TEXT": "a later caption of it", "WIDTH": 96, "HEIGHT": 96}
    (tmp_path / "in" / "b.jsonl").write_text(json.dumps(row) + "\n")
    asked = Counter(web.hits)
    rerun(root, "filter", recipe=load_recipe(spelled, ["filter.exclude=[]"]))
    assert (Counter(web.hits) - asked)["/7.jpg"] == 0
    assert urls_in(root) == set()


def test_remove_of_what_is_known_takes_out_what_is_left(spelled, tmp_path):
    """A run of before whose report and tables still hold a row that a tombstone names."""
    root = tmp_path / "run"
    rerun(root, "filter", recipe=load_recipe(spelled))
    gone = read_tombstones(root).uids.to_pylist()[0]
    (root / "report.html").write_text("a long caption here")
    os.utime(root / "report.html", ns=(0, 0))
    (root / "left").mkdir()
    pq.write_table(pa.table({"uid": pa.array([gone], pa.binary(16))}), root / "left" / "0.parquet")
    remove(root, lists=[tmp_path / "listed.txt"])
    assert not (root / "report.html").exists()
    assert pq.read_table(root / "left" / "0.parquet").num_rows == 0
    before = read_tombstones(root).table
    assert remove(root, lists=[tmp_path / "listed.txt"]).record == ""
    assert read_tombstones(root).table == before
