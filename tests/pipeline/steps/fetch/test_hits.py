"""Pictures that lists of hashes name: nothing of them or of their rows is left, and the run is whole."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from filters.images.pdq import pdq_of_jpeg
from manifests.aside import ASIDE, groups
from manifests.manifest import Manifest
from manifests.tombstones import read_tombstones
from manifests.verify import verify_run
from pipeline.recipes.schema import RecipeError
from pipeline.stages.registry import STAGES
from pipeline.steps.fetch.hits import hits_of
from tests.support.filter_runs import final_rows, run_filter
from tests.support.keep_runs import files_of, mend
from tests.support.object_store import in_memory
from tests.support.removals import remove
from tests.support.small_web import FETCHED, jpeg, picture, write_recipe

HITS = {1: "md5", 4: "sha1", 6: "source_sha256", 9: "pdq"}
"""Number of a picture -> the kind of list that names it."""
URL = "http://pictures.test/secret-{}.jpg"
RECIPE = (
    FETCHED
    + """
[filter]
exclude = [{{ file = "md5.txt" }}, {{ file = "sha1.txt" }}, {{ file = "source_sha256.csv" }},
           {{ file = "pdq.txt", kind = "pdq", radius = 31 }}]
[tier.pretrain]
size = 64
rules = []
"""
)


def textured() -> Image.Image:
    """Return a picture with detail of all sizes, as photographs have: PDQ tells it however it was saved."""
    noise = np.random.default_rng(9).integers(0, 256, (48, 48, 3), np.uint8)
    return Image.fromarray(noise).resize((192, 192), Image.Resampling.BICUBIC)


def body(number: int) -> bytes:
    """Return a picture of the web."""
    return jpeg(textured(), quality=60) if number == 9 else jpeg(picture(200 + number))


def write_lists(folder: Path) -> None:
    digits = {kind: hashlib.new(kind.removeprefix("source_"), body(n)).hexdigest() for n, kind in HITS.items() if n < 9}
    (folder / "md5.txt").write_text(f"md5\n{digits['md5'].upper()}\n{'00' * 16}\n")
    (folder / "sha1.txt").write_text(f"{digits['sha1']}\n")
    (folder / "source_sha256.csv").write_text(f"source_sha256,case\n{digits['source_sha256']},17\n")
    (folder / "pdq.txt").write_text(pdq_of_jpeg(jpeg(textured(), quality=95)) + "\n")  # saved otherwise


@pytest.fixture(scope="module")
def place(tmp_path_factory, web):
    """Return a folder with a table of 12 rows, lists that name 4 of them, and a recipe."""
    folder = tmp_path_factory.mktemp("hits")
    web.pages.update({f"/secret-{n}.jpg": body(n) for n in range(12)})
    (folder / "in").mkdir()
    urls = [URL.format(n) for n in range(12)] + [URL.format(1)]
    texts = [f"caption {n} of a row" for n in range(12)] + ["caption 1 of a row"]  # the last: an exact duplicate
    pq.write_table(pa.table({"URL": urls, "TEXT": texts}), folder / "in" / "a.parquet")
    write_lists(folder)
    write_recipe(folder / "recipe.toml", web, folder / "in", folder / "unused", RECIPE)
    return folder


@pytest.fixture(scope="module")
def done(place):
    """Return the run folder of the whole stage."""
    listed_run(place, place / "run")
    return place / "run"


def holding(folder: Path, number: int) -> list[str]:
    """Return the files below a folder that hold the picture of a row, a piece of it, its URL or its caption, in tables
    too."""
    sought = (body(number)[-300:-236], URL.format(number).encode(), f"caption {number} of a row".encode())
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += json.dumps(pq.read_table(path).to_pylist(), default=repr).encode()
        if any(piece in data for piece in sought):
            found.append(path.relative_to(folder).as_posix())
    return found


def listed_run(place: Path, root: Path, *sets: str) -> Manifest:
    """Run the stage from the folder of the lists and return its manifest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return run_filter(place / "recipe.toml", root, *sets)


def shared(place: Path, root: Path) -> Path:
    """Copy a run, so that a test may change it."""
    shutil.copytree(place / "run", root)
    return root


def is_whole(root: Path) -> bool:
    return not verify_run(root, {stage: tuple(step.name for step in steps) for stage, steps in STAGES.items()}).wrong


def test_what_is_looked_for_is_found_where_it_is(done):
    assert {"pairs/00000.tar", "pairs/00000.parquet", "ledger/select/00000.parquet"} <= set(holding(done, 0))


@pytest.mark.parametrize("number", HITS)
def test_nothing_is_left_of_what_a_list_names(done, number):
    assert holding(done, number) == []


def test_every_row_has_its_fate_and_each_list_its_count(done):
    manifest = Manifest.read(done / "manifests" / "filter.json")
    # the exact duplicate of row 1 is as much named as row 1
    assert (manifest.rows_in, manifest.kept, manifest.dropped) == (13, 8, {"removed": 5})
    counts = {"md5.txt": 2, "pdq.txt": 1, "sha1.txt": 1, "source_sha256.csv": 1}
    assert manifest.facts["removed_by_list"] == counts
    final = final_rows(done)
    removed = [row for row in final if row["reason"] == "removed"]
    assert [row["source_row"] for row in removed] == [*HITS, 12]
    assert all(row["uid"] and row["url"] is None and row["width"] is None for row in removed)
    assert is_whole(done)


def test_other_rows_stay_in_their_shards(done):
    tables = [pq.read_table(done / "pairs" / f"0000{shard}.parquet")["url"].to_pylist() for shard in (0, 1)]
    assert tables == [[URL.format(n) for n in (0, 2, 3, 5, 7)], [URL.format(n) for n in (8, 10, 11)]]


def test_a_tombstone_says_which_list_it_was_and_no_url(done):
    every = read_tombstones(done).table
    urls = sorted(every.filter(pc.equal(every["kind"], "url"))["value_sha256"].to_pylist())
    assert urls == sorted(hashlib.sha256(f"pictures.test/secret-{n}.jpg".encode()).hexdigest() for n in HITS)
    table = every.filter(pc.is_valid(every["source_row"])).sort_by("source_row")
    assert table["kind"].to_pylist() == [*HITS.values(), "md5"]
    assert table["list"].to_pylist() == ["md5.txt", "sha1.txt", "source_sha256.csv", "pdq.txt", "md5.txt"]
    assert table["shard"].to_pylist() == ["00000"] * 3 + ["00001", None]  # the duplicate was never planned


def test_the_next_run_has_nothing_to_do_and_asks_for_nothing(place, done, web, tmp_path):
    root = shared(place, tmp_path / "run")
    before, asked = Manifest.read(root / "manifests" / "filter.json").digest, len(web.hits)
    assert listed_run(place, root).digest == before
    assert len(web.hits) == asked
    assert hits_of(root) == []


def test_a_fresh_run_gives_the_same_digest(place, done, tmp_path):
    fresh = listed_run(place, tmp_path / "run")
    assert fresh.digest == Manifest.read(done / "manifests" / "filter.json").digest


def test_a_kill_between_fetch_and_the_end_is_made_up_for(place, done, tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.steps.fetch.hits.commit", killed)
    with pytest.raises(KeyboardInterrupt):
        listed_run(place, tmp_path / "run")
    # what a hit would have written is not there even now; the row of the input still is
    assert holding(tmp_path / "run", 4) == ["ledger/select/00000.parquet", "manifests/plan/fetch/00000.parquet"]
    monkeypatch.undo()
    assert listed_run(place, tmp_path / "run").digest == Manifest.read(done / "manifests" / "filter.json").digest
    assert [holding(tmp_path / "run", number) for number in HITS] == [[]] * 4


def test_without_the_list_a_tombstone_still_names_the_picture(place, done, web, tmp_path):
    root = shared(place, tmp_path / "run")
    web.pages["/secret-99.jpg"] = body(1)  # elsewhere, under another text
    (tmp_path / "in").mkdir()
    shutil.copy(place / "in" / "a.parquet", tmp_path / "in")
    row = {"URL": [URL.format(99)], "TEXT": ["caption 99 of a row"]}
    pq.write_table(pa.table(row), tmp_path / "in" / "b.parquet")
    made = listed_run(place, root, "filter.exclude=[]", f'input.files="{tmp_path}/in/*.parquet"')
    assert (made.rows_in, made.dropped) == (14, {"removed": 6})
    assert holding(root, 99) == []


def test_digests_of_the_bytes_received_stand_beside_the_picture(done):
    rows = {row["url"]: row for row in pq.read_table(done / "pairs" / "00000.parquet").to_pylist()}
    row = rows[URL.format(2)]
    names = {"md5": "md5", "sha1": "sha1", "source_sha256": "sha256"}
    assert {kind: row[kind] for kind in names} == {
        kind: hashlib.new(name, body(2)).hexdigest() for kind, name in names.items()
    }
    assert row["pdq"] == pdq_of_jpeg(body(2))
    assert row["sha256"] != row["source_sha256"]  # 96 pixels were made 71


def test_a_list_that_came_after_the_picture_marks_it_and_remove_takes_it_out(place, done, web, tmp_path):
    root = shared(place, tmp_path / "run")
    (tmp_path / "late.txt").write_text(f"md5\n{hashlib.md5(body(2)).hexdigest()}\n")
    asked = len(web.hits)
    listed = f'filter.exclude=["md5.txt", "sha1.txt", "source_sha256.csv", "{tmp_path / "late.txt"}"]'
    made = listed_run(place, root, listed)
    assert (made.dropped, len(web.hits)) == ({"removed": 6}, asked)
    marked = pq.read_table(root / "ledger" / "marks.parquet").to_pylist()
    assert [(row["reason"], row["detail"]) for row in marked] == [("removed", "late.txt: md5")]
    assert "pairs/00000.tar" in holding(root, 2)  # marked, as by a list of pHashes
    assert remove(root, lists=[tmp_path / "late.txt"]).rows == 1
    assert holding(root, 2) == []
    assert is_whole(root)


def test_what_a_list_names_goes_from_what_lies_aside_too(place, tmp_path, web):
    """The pictures came before there were lists, and lie aside since other settings fetch them again."""
    run = tmp_path / "run"
    listed_run(place, run, "filter.exclude=[]")
    listed_run(place, run, "filter.exclude=[]", "fetch.jpeg_quality=50")
    assert sum(group.rows for group in groups(run, ASIDE, "fetch")) == 12
    listed_run(place, run, "fetch.jpeg_quality=60")
    assert {number: holding(run, number) for number in HITS} == {number: [] for number in HITS}
    assert sum(group.rows for group in groups(run, ASIDE, "fetch")) == 16  # eight of each of the settings before
    assert is_whole(run)


def test_a_list_that_comes_later_reaches_what_lies_aside_with_the_next_run(place, tmp_path, web, capsys):
    run = tmp_path / "run"
    listed_run(place, run, "filter.exclude=[]")
    listed_run(place, run, "filter.exclude=[]", "input.limit=1")
    fallen = [number for number in HITS if any(name.startswith(ASIDE) for name in holding(run, number))]
    assert len(fallen) >= 3
    rows = sum(group.rows for group in groups(run, ASIDE, "fetch"))
    asked = len(web.hits)
    listed_run(place, run, "input.limit=1")
    assert {number: [name for name in holding(run, number) if name.startswith(ASIDE)] for number in HITS} == {
        number: [] for number in HITS
    }
    assert f"removed by lists of hashes from what was set aside: {len(fallen)} rows" in capsys.readouterr().err
    assert sum(group.rows for group in groups(run, ASIDE, "fetch")) == rows - len(fallen)
    assert web.hits[asked:] == []
    assert is_whole(run)


def test_rows_that_a_list_named_aside_are_counted_by_it_when_they_come_back(place, done, tmp_path):
    """A run with the lists from the start counts the same."""
    run = tmp_path / "run"
    listed_run(place, run, "filter.exclude=[]")
    listed_run(place, run, "filter.exclude=[]", "input.limit=1")
    few = listed_run(place, run, "input.limit=1")
    assert sum(few.facts.get("removed_by_list", {}).values()) == few.dropped.get("removed", 0)
    counts = {"md5.txt": 2, "pdq.txt": 1, "sha1.txt": 1, "source_sha256.csv": 1}
    back = listed_run(place, run)
    assert (back.dropped, back.facts["removed_by_list"]) == ({"removed": 5}, counts)
    assert listed_run(place, run).facts["removed_by_list"] == counts
    assert is_whole(run)


def test_the_other_engine_is_refused_with_such_lists(place, tmp_path):
    with pytest.raises(RecipeError, match="writes pictures to disk before lists of md5"):
        listed_run(place, tmp_path / "run", 'fetch.engine="img2dataset"')


def test_a_damaged_shard_is_made_again_without_what_was_named(place, done, tmp_path):
    root = shared(place, tmp_path / "run")
    before = {name: (root / name).read_bytes() for name in ("pairs/00000.tar", "ledger/select/00000.parquet")}
    for name in before:
        (root / name).write_bytes(b"damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        mend(root)
    assert {name: (root / name).read_bytes() for name in before} == before
    assert is_whole(root)


@pytest.mark.parametrize("moved", [0, 1, 5])
def test_a_kill_while_files_are_put_in_place_is_made_up_for(place, done, tmp_path, monkeypatch, moved):
    """A hit goes with all of its rows or with none: the next run ends what was begun."""
    real, count = os.replace, []

    def stop(source, target):
        count.append(source)
        if len([one for one in count if ".removal/new" in str(one)]) > moved:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("manifests.store.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        listed_run(place, tmp_path / "run")
    monkeypatch.undo()
    assert listed_run(place, tmp_path / "run").digest == Manifest.read(done / "manifests" / "filter.json").digest
    assert [holding(tmp_path / "run", number) for number in HITS] == [[]] * 4
    assert is_whole(tmp_path / "run")


def test_links_behind_which_rows_would_stay_are_refused_before_any_work(place, tmp_path, web):
    elsewhere, root = tmp_path / "elsewhere.parquet", tmp_path / "run"
    elsewhere.write_bytes(b"")
    (root / "pairs").mkdir(parents=True)
    (root / "pairs" / "00000.parquet").symlink_to(elsewhere)
    asked = len(web.hits)
    with pytest.raises(RecipeError, match=r"00000\.parquet is a link to .*could not be taken out there"):
        listed_run(place, root)
    assert len(web.hits) == asked


def test_in_a_store_the_same_is_taken_out(place, done):
    root = in_memory()
    assert listed_run(place, root).digest == Manifest.read(done / "manifests" / "filter.json").digest
    mine = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*")}
    theirs = {path.relative_to(done).as_posix(): path.read_bytes() for path in files_of(done)}
    own = {name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name)}
    assert {name for name in own if not name.startswith(".")} == {"recipe.toml", "manifests/recipe.json"}
    for number in HITS:
        assert [name for name, data in mine.items() if URL.format(number).encode() in data] == []
