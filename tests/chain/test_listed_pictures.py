"""Lists of hashes over whole runs: pictures that came with the input, and shards of which nothing is left."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.verify import verify_run
from pipeline.stages.registry import STAGES
from tests.support.filter_runs import final_rows, run_filter
from tests.support.small_web import FETCHED, jpeg, picture, write_recipe

pytestmark = pytest.mark.slow
LISTED = (1, 3)
LOCAL = """
[input]
dataset = "jsonl"
files = "{folder}/in/*.jsonl"
images = "{folder}/images"
[output]
root = "{folder}/run"
[fetch]
shard_rows = 3
[filter]
exclude = [{{ file = "{folder}/named.txt", kind = "md5" }}]
[tier.pretrain]
size = 64
rules = []
"""
ALL_OF_A_SHARD = FETCHED + '[filter]\nexclude = "named.txt"\n[tier.pretrain]\nsize = 64\nrules = []\n'


def body(number: int) -> bytes:
    return jpeg(picture(300 + number))


def text(number: int) -> str:
    return f"caption {number} of a row"


def write_list(path: Path, numbers: tuple[int, ...]) -> None:
    path.write_text("md5\n" + "".join(f"{hashlib.md5(body(number)).hexdigest()}\n" for number in numbers))


def holding(root: Path, *sought: str) -> list[str]:
    """Return the files of a run that hold one of these texts, in tables too."""
    found = []
    for path in (path for path in root.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += json.dumps(pq.read_table(path).to_pylist(), default=repr).encode()
        if any(one.encode() in data for one in sought):
            found.append(path.relative_to(root).as_posix())
    return found


def is_whole(root: Path) -> bool:
    return not verify_run(root, {stage: tuple(step.name for step in steps) for stage, steps in STAGES.items()}).wrong


def test_pictures_that_came_with_the_input_go_with_their_rows(tmp_path):
    for name in ("in", "images"):
        (tmp_path / name).mkdir()
    for number in range(6):
        (tmp_path / "images" / f"own-{number}.jpg").write_bytes(body(number))
    lines = [json.dumps({"image_path": f"own-{number}.jpg", "text": [text(number)]}) for number in range(6)]
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(lines) + "\n")
    write_list(tmp_path / "named.txt", LISTED)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(LOCAL.format(folder=tmp_path))
    made = run_filter(recipe, tmp_path / "run")
    assert (made.rows_in, made.kept, made.dropped) == (6, 4, {"removed": 2})
    assert made.facts["removed_by_list"] == {"named.txt": 2}
    for number in LISTED:
        # the table that was made of the lines lies in the run: its rows are blank
        assert holding(tmp_path / "run", f"own-{number}.jpg", text(number)) == []
    assert any(name.startswith("manifests/input/") for name in holding(tmp_path / "run", "own-0.jpg"))
    assert [row["reason"] for row in final_rows(tmp_path / "run")] == [None, "removed", None, "removed", None, None]
    assert is_whole(tmp_path / "run")
    assert run_filter(recipe, tmp_path / "run").digest == made.digest


@pytest.mark.parametrize("named", [tuple(range(8, 12)), tuple(range(8)), tuple(range(12))])
def test_a_shard_may_lose_all_of_its_rows_and_the_run_too(web, tmp_path, monkeypatch, named):
    web.pages.update({f"/listed-{number}.jpg": body(number) for number in range(12)})
    (tmp_path / "in").mkdir()
    urls = [f"http://pictures.test/listed-{number}.jpg" for number in range(12)]
    table = pa.table({"URL": urls, "TEXT": [text(number) for number in range(12)]})
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    write_list(tmp_path / "named.txt", named)
    recipe = write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "unused", ALL_OF_A_SHARD)
    monkeypatch.chdir(tmp_path)
    made = run_filter(recipe, tmp_path / "run")
    assert (made.rows_in, made.kept, made.dropped) == (12, 12 - len(named), {"removed": len(named)})
    assert holding(tmp_path / "run", *(f"listed-{number}.jpg" for number in named)) == []
    assert is_whole(tmp_path / "run")
    asked = len(web.hits)
    assert run_filter(recipe, tmp_path / "run").digest == made.digest
    assert len(web.hits) == asked


def test_every_caption_of_a_listed_picture_goes_and_it_is_asked_for_once(web, tmp_path, monkeypatch):
    web.pages.update({f"/listed-{number}.jpg": body(number) for number in range(2)})
    (tmp_path / "in").mkdir()
    spelled = ("listed-0.jpg", "./listed-0.jpg", "pub/../listed-0.jpg", "listed-1.jpg")
    urls = [f"http://pictures.test/{name}" for name in spelled]
    table = pa.table({"URL": urls, "TEXT": [text(number) for number in range(4)]})
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    write_list(tmp_path / "named.txt", (0,))
    recipe = write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "unused", ALL_OF_A_SHARD)
    monkeypatch.chdir(tmp_path)
    before = web.hits.count("/listed-0.jpg")
    made = run_filter(recipe, tmp_path / "run")
    assert (made.kept, made.dropped, made.facts["removed_by_list"]) == (1, {"removed": 3}, {"named.txt": 3})
    assert web.hits.count("/listed-0.jpg") == before + 1
    assert holding(tmp_path / "run", "listed-0.jpg", *(text(number) for number in range(3))) == []
