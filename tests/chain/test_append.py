"""New files in the same data set: finished shards stay as they are, only the new rows are work, and the counts add
up."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.commands import final, manifest, run_here
from tests.support.killed_runs import kill_when
from tests.support.small_web import write_recipe

pytestmark = pytest.mark.slow


def write(path, pages):
    """Write an input table of these pages of the small web."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {
        "URL": [f"http://pictures.test/{page}.jpg" for page in pages],
        "TEXT": [f"picture number {page}" for page in pages],
    }
    pq.write_table(pa.table(table), path, row_group_size=10)


def state(root, pattern):
    """Return name -> (inode, time, bytes) of the files."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.glob(pattern))
    }


def pictures(hits):
    """Return the pictures asked for; each run asks for the site's rules (robots.txt and the like) anew."""
    return {hit for hit in hits if hit.endswith(".jpg")}


def begin(folder, web, name="run"):
    """Run filter on b.parquet: 21 rows, the last one a duplicate; shards of 8, so that the third is not full."""
    write(folder / "in" / "b.parquet", [*range(20), 3])
    recipe = write_recipe(folder / f"{name}.toml", web, folder / "in", folder / name)
    run_here(recipe, "filter")
    return recipe, folder / name


def add(folder):
    """Add a file whose name sorts first: two rows that are there already, one page that is not, nine new ones."""
    write(folder / "in" / "a.parquet", [0, 5, "none", *range(20, 29)])


def test_a_file_that_sorts_first_is_new_work_alone(tmp_path, web):
    recipe, root = begin(tmp_path, web)
    pairs, ledgers = state(root, "pairs/*"), state(root, "ledger/select/*")
    scores, digest = state(root, "scores/*"), manifest(root, "filter").digest
    add(tmp_path)
    asked = len(web.hits)
    said = run_here(recipe, "filter").stderr
    assert pictures(web.hits[asked:]) == {f"/{page}.jpg" for page in ("none", *range(20, 29))}
    assert {name: now for name, now in state(root, "pairs/*").items() if name in pairs} == pairs
    assert {name: now for name, now in state(root, "scores/*").items() if name in scores} == scores
    assert {name: now for name, now in state(root, "ledger/select/*").items() if name in ledgers} == ledgers
    assert "fetch    5/5 shards (3 were done)" in said  # 20 rows in 3 shards, 10 more in 2
    made = manifest(root, "filter")
    assert [entry["name"] for entry in made.inputs] == ["b.parquet", "a.parquet"]
    assert made.rows_in == 33 == made.kept + sum(made.dropped.values())
    assert (made.kept, made.dropped) == (29, {"exact_duplicate": 3, "http_404": 1})
    assert made.digest != digest
    rows = final(root).to_pylist()
    assert [(row["source"], row["source_row"]) for row in rows] == [("b.parquet", n) for n in range(21)] + [
        ("a.parquet", n) for n in range(12)
    ]
    assert [
        row["source_row"] for row in rows if row["source"] == "a.parquet" and row["reason"] == "exact_duplicate"
    ] == [0, 1]
    assert "filter: nothing to do" in run_here(recipe, "filter").stdout


def test_the_digest_depends_on_the_order_of_adding_and_on_no_kill(tmp_path, web):
    """The same files added in the same order give the same digest, killed or not; all of them at once are another order
    of rows."""
    recipes = [begin(tmp_path, web, name) for name in ("calm", "killed")]
    add(tmp_path)
    (recipe, calm), (other, killed) = recipes
    run_here(recipe, "filter")
    journal = killed / "manifests" / "journal" / "fetch"
    assert kill_when(lambda: any(journal.glob("0*.json")), "run", "--stage", "filter", "--recipe", other)
    run_here(other, "filter")
    assert manifest(calm, "filter").digest == manifest(killed, "filter").digest
    at_once = write_recipe(tmp_path / "once.toml", web, tmp_path / "in", tmp_path / "once")
    run_here(at_once, "filter")
    once, grown = manifest(tmp_path / "once", "filter"), manifest(calm, "filter")
    assert (once.rows_in, once.kept, once.dropped) == (grown.rows_in, grown.kept, grown.dropped)
    assert [entry["name"] for entry in once.inputs] == ["a.parquet", "b.parquet"]
    kept = [
        sorted(row["uid"] for row in final(root).to_pylist() if row["fate"] == "kept")
        for root in (calm, tmp_path / "once")
    ]
    assert kept[0] == kept[1]


def test_a_limit_draws_again_over_the_grown_input_and_fetches_no_row_twice(tmp_path, web):
    write(tmp_path / "in" / "b.parquet", range(20))
    recipe = write_recipe(tmp_path / "few.toml", web, tmp_path / "in", tmp_path / "few")
    before = len(web.hits)
    run_here(recipe, "filter", "--step", "select,fetch", "--limit", "12")
    asked = len(web.hits)
    first = pictures(web.hits[before:asked])
    assert 0 < len(first) < 20
    add(tmp_path)
    run_here(recipe, "filter", "--step", "select,fetch", "--limit", "100")
    assert (
        sum(pq.read_metadata(path).num_rows for path in (tmp_path / "few" / "ledger" / "select").glob("*.parquet"))
        == 32
    )
    assert not pictures(web.hits[asked:]) & first
