"""decide: marks of dedup among the other reasons, and what the final ledger says of each row."""

import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import write_table
from manifests.journal import FileRecord, Journal
from manifests.layout import SCRATCH
from manifests.schema import DIGESTS
from manifests.tombstones import TABLE
from manifests.uid import uid_of
from pipeline.execution import shuffle
from pipeline.execution.in_flight import InFlight
from pipeline.execution.shuffle import here
from pipeline.recipes.load import load_recipe
from pipeline.steps import decide
from pipeline.steps.decide import Decide
from pipeline.steps.evaluate import scratch_of
from tests.support.filter_runs import final_rows, run_filter
from tests.support.grouping import as_on_a_cluster, on_beam
from tests.support.small_web import EXPECTED, KEPT, write_input, write_recipe
from tests.support.undecided import undecided_recipe, undecided_run


def decided(root, aesthetic):
    """Decide a run with this bound, journal it, and return its record."""
    step = Decide(undecided_recipe(root, aesthetic), root)
    step.journal.record(step.run(step.units()[0], InFlight()))
    return step.journal.get("00000")


@pytest.fixture(scope="module")
def place(tmp_path_factory, web):
    """Return (recipe, run folder) of a finished filter stage."""
    folder = tmp_path_factory.mktemp("decide")
    write_input(folder / "in")
    recipe = write_recipe(folder / "recipe.toml", web, folder / "in", folder / "run")
    run_filter(recipe, folder / "run")
    return recipe, folder / "run"


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
    journal.record(replace(record, files=(*clusters, FileRecord.of(root, path))))
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


def test_a_changed_threshold_writes_only_the_shards_whose_rows_change(tmp_path):
    """4.75 -> 5.5 drops row 3 of a.parquet alone: the file of b.parquet stays, and is what a whole run would write."""
    root, again = undecided_run(tmp_path / "run"), undecided_run(tmp_path / "again")
    first = decided(root, 4.75)
    paths = [root / "ledger" / "final" / f"0000{number}.parquet" for number in range(2)]
    before = [path.stat().st_ino for path in paths]
    second = decided(root, 5.5)
    assert [path.stat().st_ino == inode for path, inode in zip(paths, before, strict=True)] == [False, True]
    assert [row["reason"] for row in final_rows(root)][3] == "aesthetic"
    assert first.dropped["exact_duplicate"] == second.dropped["exact_duplicate"] == 1
    assert (first.rows_out, second.rows_out) == (2, 1)
    assert second.dropped == {
        **{"aesthetic": 1, "exact_duplicate": 1, "http_404": 1, "near_duplicate": 1},
        **{"placeholder": 1, "removed": 1, "size": 1},
    }
    decided(again, 5.5)
    for path in paths:
        assert path.read_bytes() == (again / path.relative_to(root)).read_bytes()


def test_a_damaged_final_shard_is_written_again(tmp_path):
    root = undecided_run(tmp_path)
    decided(root, 4.75)
    path = root / "ledger" / "final" / "00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    decided(root, 4.75)
    assert path.read_bytes() == whole


def test_an_attempt_that_was_killed_is_taken_up(tmp_path):
    root, done = undecided_run(tmp_path), []
    step = Decide(undecided_recipe(root), root)

    def one_of_final(inner, units):
        here(inner, units[:1] if inner.name == "final" else units)
        if inner.name == "final":
            raise KeyboardInterrupt

    def noted(inner, units):
        done.extend((inner.name, unit.name) for unit in units)
        here(inner, units)

    (unit,) = step.units()
    with pytest.raises(KeyboardInterrupt):
        step.do_unit(unit, one_of_final)
    assert scratch_of(root).is_dir()
    assert step.do_unit(unit, noted).rows_out == 2
    assert done == [("final", "00001")]
    assert not scratch_of(root).parent.exists()
    done.clear()
    with pytest.raises(KeyboardInterrupt):
        step.do_unit(unit, one_of_final)
    note = root / "tombstones.parquet"
    write_table(note, TABLE.empty_table())  # what was removed may have changed: all of it begins anew
    step.do_unit(unit, noted)
    assert done == [
        ("twins_namers", "00000"),
        ("twins_paired", "00000"),
        ("twins", "00000"),
        ("evaluate", "00000"),
        ("rivals", "00000"),
        ("losers", "00000"),
        ("final", "00000"),
        ("final", "00001"),
    ]


def test_a_final_shard_that_select_has_no_more_goes(tmp_path):
    root = undecided_run(tmp_path)
    stale = root / "ledger" / "final" / "00007.parquet"
    write_table(stale, pa.table({"x": [1]}))
    decided(root, 4.75)
    assert not stale.exists()


def test_rows_of_each_tier_are_counted(tmp_path):
    root = undecided_run(tmp_path)
    step = Decide(undecided_recipe(root), root)
    assert step.tiers() == {"pretrain": 0, "finetune": 0}
    decided(root, 4.75)
    assert step.tiers() == {"pretrain": 2, "finetune": 1}


def test_units_of_any_size_give_the_same_bytes(tmp_path, monkeypatch):
    bytes_of = []
    for number, rows in enumerate((100_000, 2)):
        monkeypatch.setattr(decide, "EVALUATED_ROWS", rows)
        root = undecided_run(tmp_path / str(number))
        decided(root, 4.75)
        bytes_of.append([path.read_bytes() for path in sorted((root / "ledger" / "final").iterdir())])
    assert bytes_of[0] == bytes_of[1]


@pytest.mark.parametrize("slice_bytes", [1 << 20, 60], ids=["one part", "some parts"])
def test_a_cluster_writes_the_bytes_of_one_machine(tmp_path, monkeypatch, slice_bytes):
    monkeypatch.setattr(shuffle, "SLICE_BYTES", slice_bytes)
    monkeypatch.setattr(decide, "EVALUATED_ROWS", 2)
    root, other = undecided_run(tmp_path / "here"), undecided_run(tmp_path / "there")
    decided(root, 4.75)
    step = Decide(undecided_recipe(other), other)
    (unit,) = step.units()
    with as_on_a_cluster():
        record = step.do_unit(unit, on_beam, grouped=True)
    assert record.rows_out == 2
    assert not (other / SCRATCH).exists()
    files = [file.path for file in record.files]
    assert len(files) == 2
    assert [(root / path).read_bytes() for path in files] == [(other / path).read_bytes() for path in files]
