"""Damaged pairs come back from what is whole of them and from the web; a picture that is not what it was is never
taken."""

import hashlib
import io
import json
import shutil
import tarfile

import pyarrow as pa
import pytest

from manifests.files import read_table, write_table
from manifests.manifest import Manifest
from manifests.shards import read_shard, write_shard
from manifests.tables import ATTEMPTS
from manifests.verify import verify_run
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Unit
from pipeline.maintenance.repair.recover_pairs import carry_pairs, changed, recorded, scored
from pipeline.maintenance.repair.run import STAGE_STEPS
from pipeline.recipes.load import load_recipe
from pipeline.stages.run import StageOptions, run_stage
from tests.support.keep_runs import differing, files_of, make_run, mend, without_beam
from tests.support.records import uid
from tests.support.small_web import jpeg, picture

TAR, TABLE, LEDGER, SCORES = (
    "pairs/00000.tar",
    "pairs/00000.parquet",
    "ledger/fetch/00000.parquet",
    "scores/00000.parquet",
)
NOW = {"changed": "another picture now", "gone": "http_404", "a page": "not_an_image"}


@pytest.fixture(scope="module")
def made(tmp_path_factory, web):
    return make_run(tmp_path_factory.mktemp("pairs"), web, "filter")


@pytest.fixture
def change(web, monkeypatch):
    """Let the web have another /3.jpg from now on, or none, or a page."""
    bodies = {"changed": jpeg(picture(77)), "gone": b"", "a page": b"<html>sorry</html>"}
    return lambda how: monkeypatch.setitem(web.pages, "/3.jpg", bodies[how])


def spoil_picture(root, number=3):
    """Flip a byte in the middle of the picture of /NUMBER.jpg."""
    data = bytearray((root / TAR).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        keys = [
            info.name[:-5]
            for info in tar
            if info.name.endswith(".json") and f"/{number}.jpg".encode() in tar.extractfile(info).read()
        ]
        info = tar.getmember(f"{keys[0]}.jpg")
    data[info.offset_data + info.size // 2] ^= 4
    (root / TAR).write_bytes(data)


def asked(web, since):
    return [path for path in web.hits[since:] if path.endswith(".jpg")]


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files_of(root)}


@pytest.mark.parametrize("more", [(), (TABLE,), (LEDGER,), (TABLE, LEDGER), (TABLE, LEDGER, SCORES)])
def test_one_lost_picture_is_asked_for_and_the_rest_is_saved(run, made, web, more):
    spoil_picture(run)
    for name in more:
        (run / name).write_bytes((run / name).read_bytes()[:-20])
    since = len(web.hits)
    work = mend(run)
    assert (work.left, differing(run, made)) == ({}, [])
    assert asked(web, since) == ["/3.jpg"]


@pytest.mark.parametrize("how", NOW)
@pytest.mark.parametrize("more", [(), (TABLE,), (TABLE, LEDGER)])
def test_a_picture_that_is_not_what_it_was_leaves_all_as_it_is(run, web, change, how, more):
    spoil_picture(run)
    for name in more:
        (run / name).write_bytes(b"")
    change(how)
    before, since = contents(run), len(web.hits)
    work = mend(run)
    assert set(work.repaired) <= {LEDGER}  # of another picture the ledger says the same
    assert {**contents(run), LEDGER: b""} == {**before, LEDGER: b""}
    assert {*work.left, *work.repaired} == {TAR, *more}
    assert f"http://pictures.test/3.jpg ({NOW[how]})" in work.left[TAR]
    assert asked(web, since) == ["/3.jpg"]
    assert {finding.path for finding in verify_run(run, STAGE_STEPS).wrong} == set(work.left)


def test_other_files_of_the_shard_come_back_though_a_picture_does_not(run, made, change):
    for name in (LEDGER, SCORES):
        (run / name).unlink()
    change("gone")
    assert (mend(run).left, differing(run, made)) == ({}, [])  # its tar is whole: nothing is asked
    spoil_picture(run)
    (run / "scores" / "00001.parquet").unlink()
    work = mend(run)
    assert (list(work.left), list(work.repaired)) == ([TAR], ["scores/00001.parquet"])


def test_the_printed_advice_takes_the_shard_as_the_web_is_now(run, made, change):
    spoil_picture(run)
    change("gone")
    assert "remove pairs/00000.tar and run filter" in mend(run).left[TAR]
    (run / TAR).unlink()
    with without_beam():
        finished = run_stage(recipe_of_run(run), "filter", StageOptions())
        manifest = finished.manifest
    assert not verify_run(run, STAGE_STEPS).wrong
    assert manifest.dropped["http_404"] == Manifest.read(made / "manifests" / "filter.json").dropped["http_404"] + 1


def test_refusals_are_asked_again_where_the_ledger_that_quotes_them_is_lost(tmp_path, web, monkeypatch):
    monkeypatch.setitem(web.pages, "/robots.txt", b"User-agent: *\nDisallow: /5.jpg\n")
    root = make_run(tmp_path, web, "filter")
    shutil.copytree(root, tmp_path / "made")
    (root / LEDGER).unlink()
    since = len(web.hits)
    assert (mend(root).left, differing(root, tmp_path / "made")) == ({}, [])
    assert asked(web, since) == []  # its robots.txt tells


LINES = """
[input]
dataset = "jsonl"
files = "{folder}/in/*.jsonl"
[output]
root = "{folder}/run"
[tier.pretrain]
size = 64
rules = [{{ use = "size", min_side = 64 }}]
"""


@pytest.fixture
def lines(tmp_path):
    """Make a run of pictures that came with the input, as LlamaGen's format has them."""
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(jpeg(picture(number)))
    rows = [json.dumps({"image_path": f"{name}.jpg", "text": [f"picture {name}"]}) for name in (0, 1, 2, 3, "none")]
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "recipe.toml").write_text(LINES.format(folder=tmp_path.as_posix()))
    with without_beam():
        run_stage(load_recipe(tmp_path / "recipe.toml"), "filter", StageOptions())
    shutil.copytree(tmp_path / "run", tmp_path / "made")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "names", [("manifests/input.json",), ("TABLE",), ("manifests/input.json", "TABLE"), (LEDGER,), (TAR, TABLE, LEDGER)]
)
def test_a_run_of_pictures_that_came_with_the_input(lines, names):
    """Tables of the input were called foreign when their list was lost, and never made again; the ledger came out with
    HTTP's 200."""
    table = next((lines / "manifests" / "input").glob("*.parquet")).relative_to(lines).as_posix()
    lost = [table if name == "TABLE" else name for name in names]
    for name in lost:
        (lines / name).write_bytes((lines / name).read_bytes()[:-9])
    found = verify_run(lines, STAGE_STEPS)
    assert not [finding for finding in found.findings if finding.kind == "foreign"]
    assert {finding.path for finding in found.wrong} == set(lost[:1] if len(lost) == 2 else lost)
    assert (mend(lines).left, differing(lines, lines.parent / "made")) == ({}, [])
    assert not verify_run(lines, STAGE_STEPS).findings


def pair(number, error=None, data=None):
    """Return a row of the table of pairs: a picture, or why there is none."""
    sizes = dict.fromkeys(("width", "height", "original_width", "original_height"), None if error else 64)
    sha256 = None if error else hashlib.sha256(data or b"picture %d" % number).hexdigest()
    url = f"http://a.test/{number}.jpg"
    return {
        "key": uid(number).hex(),
        "url": url,
        "caption": f"text {number}",
        "sha256": sha256,
        "error_message": error,
        **sizes,
    }


ROWS = [pair(1), pair(2), pair(3, "http_404"), pair(4, "robots")]


@pytest.fixture
def shard(tmp_path):
    """Return a folder with a shard of two pictures and two failures: its table, its tar, its ledger, its scores."""
    write_table(tmp_path / "pairs" / "00000.parquet", pa.Table.from_pylist(ROWS))
    samples = [(uid(n).hex(), {"jpg": b"picture %d" % n, "json": json.dumps(pair(n)).encode()}) for n in (1, 2)]
    write_shard(tmp_path / "pairs" / "00000.tar", samples)
    attempts = [
        {"uid": uid(1), "attempt": 1, "last": True, "http_status": 200, "reason": None},
        {"uid": uid(2), "attempt": 1, "last": False, "http_status": 503, "reason": "http_503"},
        {"uid": uid(2), "attempt": 2, "last": True, "http_status": 200, "reason": None},
        {"uid": uid(3), "attempt": 1, "last": True, "http_status": 404, "reason": "http_404"},
    ]
    write_table(tmp_path / "ledger" / "fetch" / "00000.parquet", pa.Table.from_pylist(attempts, schema=ATTEMPTS))
    score = {"uid": pa.array([uid(1), uid(3)], pa.binary(16)), "sha256": pa.array([b"\xab" * 32, None])}
    write_table(tmp_path / "scores" / "00000.parquet", pa.table(score))
    return tmp_path


def spoil(shard, number):
    """Make another picture of this row's in the tar."""
    path = shard / "pairs" / "00000.tar"
    path.write_bytes(path.read_bytes().replace(b"picture %d" % number, b"pXcture %d" % number, 1))


UNIT = Unit("00000", {"made_by": "m", "again": ["timeout"]}, "content", "key")


def carried(shard, local=False):
    """Return (keys of the pairs, attempts) that are set aside for the fetch step."""
    reads = carry_pairs(shard, shard, UNIT, local).reads
    assert reads == {"made_by": "m", "digests": (), "as_received": reads["as_received"]}  # a shard of before
    folder = shard / ".earlier" / "fetch"
    rows = read_table(folder / "saved-00000-ledger.parquet").to_pylist()
    attempts = [(row["uid"][0], row["attempt"], row["http_status"], row["reason"]) for row in rows]
    return [key for key, _ in read_shard(folder / "saved-00000-pairs.tar")], attempts


def test_the_digests_of_lost_pictures_go_along_since_shards_of_before_stored_what_came(shard):
    spoil(shard, 2)
    assert carry_pairs(shard, shard, UNIT, False).reads["as_received"] == (pair(2)["sha256"],)


def test_whole_pictures_are_saved_with_every_attempt_but_that_of_the_lost_one(shard):
    spoil(shard, 2)
    keys, attempts = carried(shard)
    assert keys == [uid(1).hex()]
    assert attempts == [(1, 1, 200, None), (2, 1, 503, "http_503"), (3, 1, 404, "http_404")]


def test_without_the_ledger_failures_are_those_of_the_table_but_what_it_does_not_tell(shard):
    (shard / "ledger" / "fetch" / "00000.parquet").write_bytes(b"?")
    keys, attempts = carried(shard)
    assert keys == [uid(1).hex(), uid(2).hex()]
    assert attempts == [(1, 1, 200, None), (2, 1, 200, None), (3, 1, 404, "http_404")]  # robots is asked again
    _, attempts = carried(shard, local=True)
    assert attempts == [(1, 1, None, None), (2, 1, None, None), (3, 1, None, "http_404"), (4, 1, None, "robots")]


def test_without_the_table_a_picture_is_proved_by_its_scores_or_its_note(shard):
    for name in ("pairs/00000.parquet", "ledger/fetch/00000.parquet"):
        (shard / name).unlink()
    # the scores say another sha256 of the first; of the second only its note says one
    assert carried(shard) == ([uid(2).hex()], [(2, 1, 200, None)])
    (shard / "scores" / "00000.parquet").unlink()
    assert carried(shard)[0] == [uid(1).hex(), uid(2).hex()]


def test_a_tar_that_is_gone_saves_no_picture(shard):
    (shard / "pairs" / "00000.tar").unlink()
    assert carried(shard) == ([], [(2, 1, 503, "http_503"), (3, 1, 404, "http_404")])


def test_what_a_picture_was_is_recorded_in_the_table_else_in_the_scores(shard):
    sha256 = {uid(n).hex(): hashlib.sha256(b"picture %d" % n).hexdigest() for n in (1, 2)}
    assert recorded(shard, "00000", damaged=False) == sha256
    assert recorded(shard, "00000", damaged=True) == scored(shard, "00000") == {uid(1).hex(): "ab" * 32}
    assert scored(shard, "00001") == {}


def test_pictures_that_are_others_now_are_named(shard):
    old = {uid(1).hex(): "cd" * 32, uid(2).hex(): ROWS[1]["sha256"], uid(3).hex(): "ef" * 32}
    assert changed(old, shard / "pairs" / "00000.parquet") == [
        "http://a.test/1.jpg (another picture now)",
        "http://a.test/3.jpg (http_404)",
    ]
    assert changed(old, shard / "pairs" / "00001.parquet") == []
