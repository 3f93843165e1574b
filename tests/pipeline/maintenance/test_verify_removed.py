"""pipeline/maintenance/verify_removed.py: what was removed is found wherever it still stands: tables, tars, texts."""

import json
import shutil

import pyarrow as pa
import pytest

from manifests.files import write_table
from manifests.shards import write_shard
from manifests.tombstones import TOMBSTONES, value_digest, write_tombstones
from manifests.verify import Report, verify_run
from pipeline.maintenance.remove.tombstone_rows import NOBODY
from pipeline.maintenance.repair.run import STAGE_STEPS
from pipeline.maintenance.verify_removed import with_absence
from tests.support.records import uid
from tests.support.removals import uid as uid_of_row

EMPTY = Report(0, 0, ())
GONE, STAYS = uid(5), uid(6)


def tombstone(kind, value, **more):
    return {**NOBODY, "kind": kind, "value_sha256": value_digest(value), "won": False, "promote": False, **more}


@pytest.fixture
def root(tmp_path):
    """Return a folder whose tombstones name a URL with its row, and a host."""
    place = {"source": "a.parquet", "source_row": 0}
    write_tombstones(tmp_path, [tombstone("url", "a.test/5.jpg", uid=GONE, **place), tombstone("host", "gone.test")])
    return tmp_path


def said(root):
    """Return path -> what is found there."""
    report = with_absence(root, EMPTY, 1)
    assert {finding.kind for finding in report.findings} <= {"removed"}
    return {finding.path: finding.says for finding in report.findings}


def test_nothing_is_read_where_nothing_was_removed(tmp_path):
    assert with_absence(tmp_path, EMPTY) is EMPTY


def test_damaged_tombstones_are_verifys_to_name(root):
    (root / TOMBSTONES).write_bytes(b"PAR1")
    assert with_absence(root, EMPTY) is EMPTY
    (root / TOMBSTONES).unlink()
    assert with_absence(root, EMPTY) is EMPTY


def test_a_folder_that_holds_nothing_of_it_is_told_so(root):
    (root / "a.json").write_text("{}")
    report = with_absence(root, EMPTY, 1)
    assert report.findings == ()
    # the tombstones themselves are not searched; their journal's record and a.json are
    assert report.said == ("removed: 1 uids, 2 files searched for them, their URLs and hosts: in 0 of them",)


URLS = ["http://a.test/5.jpg", "HTTP://A.test:80/5.jpg#x", "http://cdn.gone.test/1.jpg", "http://a.test/55.jpg", None]
TABLES = {
    "uid": ({"uid": pa.array([GONE, STAYS, None], pa.binary(16))}, "1 uids in column uid"),
    "key": ({"key": [GONE.hex(), STAYS.hex(), GONE.hex()]}, "2 uids in column key"),
    "another column": ({"twin": pa.array([GONE, STAYS], pa.binary(16))}, "1 uids in column twin"),
    "url": ({"url": URLS}, "3 URLs in column url"),
    "both": (
        {"uid": pa.array([GONE], pa.binary(16)), "url": URLS[:1]},
        "1 uids in column uid; 1 URLs in column url",
    ),
    "neither": ({"uid": pa.array([STAYS], pa.binary(16)), "url": URLS[3:4], "text": ["gone.test"]}, ""),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_searched_by_their_columns(root, name):
    columns, says = TABLES[name]
    write_table(root / "scores" / "0.parquet", pa.table(columns))
    assert said(root) == ({"scores/0.parquet": f"holds {says}, which was removed"} if says else {})


def test_the_final_ledger_may_say_the_uid_and_not_the_url(root):
    columns = {"uid": pa.array([GONE], pa.binary(16)), "url": pa.array([None], pa.string())}
    write_table(root / "ledger" / "final" / "0.parquet", pa.table(columns))
    assert said(root) == {}
    write_table(root / "ledger" / "final" / "0.parquet", pa.table({**columns, "url": ["http://a.test/5.jpg"]}))
    assert said(root) == {"ledger/final/0.parquet": "holds 1 URLs in column url, which was removed"}


def test_tars_are_searched_by_their_keys_and_notes(root):
    note = json.dumps({"url": "http://a.test/5.jpg"}).encode()
    write_shard(root / "pairs" / "0.tar", [(GONE.hex(), {"jpg": b"?"}), (STAYS.hex(), {"json": note})])
    write_shard(root / "pairs" / "1.tar", [(STAYS.hex(), {"json": b"[]", "txt": note})])
    assert said(root) == {"pairs/0.tar": f"holds member {GONE.hex()}.jpg; 1 URLs in its members, which was removed"}


TEXTS = {
    "logs/a.log": ("asked https://A.test:443/5.jpg, in vain", "1 URLs"),
    "logs/b.jsonl": ('{"u": "http:\\/\\/a.test\\/5.jpg"}', "1 URLs"),
    "report.html": ("<img src='http://gone.test/x.jpg'>", "1 URLs"),
    "logs/c.log": ("cdn.gone.test rests", "1 hosts"),
    "logs/d.log": ("http://a.test/55.jpg and notgone.test are others", ""),
    "logs/e.jsonl": (f'{{"uid": "{GONE.hex()}"}}', "1 uids"),
    "logs/f.jsonl": (f"{GONE.hex().upper()} http://a.test/5.jpg", "1 uids; 1 URLs"),
    "codes/0.index.json": ('{"members": "gone.test"}', ""),  # an index holds no hosts, but names like them
    "plan.json": ("{}", ""),
    "logs/g.bin": (GONE.hex(), ""),  # of no kind that this project writes
    "train/pretrain/prompts.txt": (GONE.hex(), ""),  # what a model has learned stays
    ".tmp-1/a.txt": (GONE.hex(), ""),
}


def test_texts_are_searched(root):
    for name, (text, _) in TEXTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert said(root) == {name: f"holds {says}, which was removed" for name, (_, says) in TEXTS.items() if says}


def test_what_the_user_wrote_may_name_it_and_is_told(root):
    (root / "recipe.toml").write_text('[fetch]\nconnect_to = { "gone.test" = "127.0.0.1" }\n')
    report = with_absence(root, EMPTY, 1)
    assert report.findings == ()
    assert report.said[-1] == "recipe.toml names a removed URL or host: it is yours, and stays as it is"


def test_what_cannot_be_read_is_verifys_to_name(root):
    for name in ("a.parquet", "a.tar"):
        (root / name).write_bytes(b"junk" * 200)
    assert said(root) == {}


def test_rows_that_brought_a_removed_picture_back_are_counted(root):
    marks = pa.table(
        {
            "uid": pa.array([uid(1), uid(1), uid(2), uid(3)], pa.binary(16)),
            "detail": ["tombstone of a picture", "tombstone of a picture", "tombstone of a picture", "another detail"],
        }
    )
    write_table(root / "ledger" / "marks.parquet", marks)
    assert with_absence(root, EMPTY, 1).said[1] == (
        "2 rows that came later have a removed picture: dropped, but their pictures are in pairs/ until pipeline remove"
        " is given the same selectors again"
    )


def test_files_of_before_are_found_in_a_run(removed_run, made):
    for name in ("pairs/00000.tar", "scores/00000.parquet"):
        shutil.copy(made / name, removed_run / name)
    report = with_absence(removed_run, verify_run(removed_run, STAGE_STEPS, 1), 1)
    found = {finding.path: finding.says for finding in report.wrong if finding.kind == "removed"}
    assert set(found) == {"pairs/00000.tar", "scores/00000.parquet"}
    assert f"member {uid_of_row(5).hex()}.jpg" in found["pairs/00000.tar"]
