"""Which rows a report shows, and with which pictures and words."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from manifests.files import write_table
from pipeline.report import examples as examples_module
from pipeline.report.examples import Example, Examples, Score, read_examples
from tests.support.report_runs import EVIL, uid, write_run

SAID = "recaptioned"


@pytest.fixture(scope="module")
def sixty(tmp_path_factory):
    """Return a run of 60 rows, which no test may change."""
    return write_run(tmp_path_factory.mktemp("sixty") / "run")


def ledgers(root):
    return sorted((root / "ledger" / "final").glob("*.parquet"))


def read(root, *tiers):
    return read_examples(root, ledgers(root), tiers, SAID)


def example(number, jpeg=b"j", text=""):
    return Example(uid(number).hex(), text, f"http://h.test/{number}.jpg", "kept", jpeg=jpeg)


def test_a_few_rows_of_each_fate_with_their_pictures(sixty):
    examples = read(sixty, "pretrain", "finetune")
    assert {tier: len(rows) for tier, rows in examples.kept.items()} == {"pretrain": 20, "finetune": 20}
    assert {reason: [bool(row.jpeg) for row in rows] for reason, rows in examples.dropped.items()} == {
        "http_404": [False] * 5,
        "near_duplicate": [True] * 5,
        "similarity": [True] * 5,
    }
    assert [[row.fate for row in group] for group in examples.groups] == [["kept", "dropped"]] * 8


def test_a_row_has_the_words_of_its_pair_and_its_scores(sixty):
    row = next(row for row in read(sixty).kept["pretrain"] if row.uid == uid(12).hex())
    assert (row.text, row.url) == (f"words 12 {EVIL}", "http://h.test/12.jpg?a=1&b=2")
    assert row.scores == (Score("conse", pytest.approx(0.12), "conse"),)
    assert row.jpeg.startswith(b"\xff\xd8")


def test_tiers_stand_in_the_order_that_is_asked_for_then_by_name(sixty):
    assert list(read(sixty, "pretrain", "other").kept) == ["pretrain", "finetune"]
    assert list(read(sixty).kept) == ["finetune", "pretrain"]


def test_the_choice_goes_by_the_uid_not_by_the_order_of_the_ledger(sixty, tmp_path):
    root = write_run(tmp_path / "run")
    path = root / "ledger" / "final" / "00000.parquet"
    table = pq.read_table(path)
    write_table(path, table.take(list(reversed(range(60)))))
    assert read(root) == read(sixty)


def test_pictures_that_might_offend_are_not_shown(tmp_path):
    root = write_run(tmp_path / "run")
    path = root / "ledger" / "final" / "00000.parquet"
    table = pq.read_table(path)
    unsafe = [0.9 if reason == "near_duplicate" else 0.5 for reason in table["reason"].to_pylist()]
    renamed = pc.replace_substring(table["reason"], "similarity", "nsfw")
    table = table.append_column("opennsfw", pa.array(unsafe, pa.float32()))
    table = table.append_column("opennsfw_origin", pa.array(["opennsfw"] * 60))
    write_table(path, table.set_column(table.column_names.index("reason"), "reason", renamed))
    examples = read(root)
    assert not any(row.jpeg for reason in ("nsfw", "near_duplicate") for row in examples.dropped[reason])
    assert all(row.jpeg for rows in examples.kept.values() for row in rows)


def test_a_written_caption_is_named_as_such_and_cut(tmp_path):
    root = write_run(tmp_path / "run", 6)
    captions = pa.table({"uid": pa.array([uid(0)], pa.binary(16)), "caption": ["a cat " * 40]})
    write_table(root / "captions" / "llava-00000.parquet", captions)
    shown = {row.uid: row.recaption for row in read(root).kept["pretrain"]}
    assert shown == {
        uid(0).hex(): "recaptioned: " + "a cat " * 26 + "a ca",
        uid(1).hex(): "",
        uid(2).hex(): "",
    }


def test_captions_that_cannot_be_read_are_left_out(tmp_path):
    root = write_run(tmp_path / "run", 6)
    (root / "captions").mkdir()
    (root / "captions" / "00000.parquet").write_bytes(b"half a fi")
    assert [row.recaption for row in read(root).kept["pretrain"]] == ["", "", ""]


def test_a_damaged_shard_costs_only_its_pictures(tmp_path):
    root = write_run(tmp_path / "run", 6)
    (root / "pairs" / "00000.tar").write_bytes(b"no tar")
    kept = read(root).kept["pretrain"]
    assert len(kept) == 3
    assert not any(row.jpeg or row.text for row in kept)


def test_without_pairs_only_dropped_rows_can_be_shown(tmp_path):
    root = write_run(tmp_path / "run", 6)
    for path in (root / "pairs").iterdir():
        path.unlink()
    examples = read(root)
    assert (examples.kept, examples.groups) == ({}, ())
    assert sorted(examples.dropped) == ["http_404", "near_duplicate", "similarity"]


def test_the_mosaic_takes_tiers_in_turn_each_row_once():
    one, two, three, blank = example(1), example(2), example(3), example(4, b"")
    examples = Examples({"a": (one, two, blank), "b": (two, three)})
    assert examples.mosaic() == [one, two, three]
    assert Examples().mosaic() == []
    assert len(Examples({"a": tuple(map(example, range(50)))}).mosaic()) == 40


def test_texts_go_to_dropped_rows_that_have_none():
    examples = Examples({"a": (example(1),)}, {"dns": (example(2), example(3, text="own"), example(4))})
    texts = {uid(number).hex(): f"text {number}" for number in (1, 2, 3)}
    told = examples.with_texts(texts)
    assert [row.text for row in told.dropped["dns"]] == ["text 2", "own", ""]
    assert told.kept == examples.kept


def test_the_ledger_is_read_up_to_the_file_with_the_last_row_that_has_a_picture(sixty, tmp_path, monkeypatch):
    """Of a ledger of many files the few are kept open that the first shards of pairs were filled from."""
    root = write_run(tmp_path / "run")
    path = root / "ledger" / "final" / "00000.parquet"
    table = pq.read_table(path)
    for number in range(6):
        write_table(path.with_name(f"{number:05d}.parquet"), table.slice(number * 10, 10))
    others = table.slice(0, 10)
    others = others.set_column(
        others.schema.get_field_index("uid"), "uid", pa.array([uid(500 + n) for n in range(10)], pa.binary(16))
    )
    for number in range(6, 9):
        write_table(path.with_name(f"{number:05d}.parquet"), others)
    viewed = {}
    view = examples_module._view
    monkeypatch.setattr(examples_module, "FILES", 2)
    monkeypatch.setattr(
        examples_module, "_view", lambda here, name, paths: viewed.update({name: len(paths)}) or view(here, name, paths)
    )
    kept = read(root, "pretrain").kept
    assert viewed["final"] == 6
    assert kept == read(sixty, "pretrain").kept
