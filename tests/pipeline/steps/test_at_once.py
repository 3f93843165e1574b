"""All pictures in one process: clusters in order of uid, and how large they are."""

from manifests.schema import schema
from pipeline.recipes.load import parse_recipe
from pipeline.steps.at_once import AtOnce
from tests.support.records import put_table, uid

RECIPE = parse_recipe({"dedup": {"radius": 2, "placeholder_min": 0}, "tier": {"a": {"size": 16}}})


def test_clusters_and_their_sizes(tmp_path):
    hashes = {9: 0b0, 4: 0xFF00, 6: None, 5: 0b11, 2: 0xFF00, 7: 0b1111, 8: 0xFFFF0000}
    rows = [{"uid": uid(number), "phash": value} for number, value in hashes.items()]
    put_table(tmp_path, "score", "scores/00000.parquet", rows, schema("uid", "phash"))
    work = AtOnce(RECIPE, tmp_path)
    assert work.top() == []  # without a plan nothing is known of those that come twice
    ((clusters, marks, matches),) = work.tables()
    found = {row["uid"][0]: row["cluster"][0] for row in clusters.to_pylist()}
    assert found == {2: 2, 4: 2, 5: 5, 7: 5, 8: 8, 9: 5}
    assert list(found) == sorted(found)
    assert (marks.num_rows, matches.num_rows) == (0, 0)
    assert work.sizes == (2, 3)


def test_no_pictures(tmp_path):
    put_table(tmp_path, "score", "scores/00000.parquet", [{"uid": uid(1)}], schema("uid", "phash"))
    work = AtOnce(RECIPE, tmp_path)
    assert work.top() == []
    assert [table.num_rows for tables in work.tables() for table in tables] == [0, 0, 0]
    assert work.sizes == (0, 0)
