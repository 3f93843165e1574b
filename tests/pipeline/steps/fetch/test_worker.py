"""One shard of pairs is fetched: a result for every planned row, in the planned order, in whatever order they come."""

import hashlib
import json
import socket
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from filters.digest_lists import DigestLists
from filters.exclude import Listed
from filters.fetch.config import FetchConfig
from filters.fetch.digests import digests_of
from filters.fetch.sites import SiteCache
from filters.images.decode import ImageLimits, Stored, open_picture
from filters.images.pdq import pdq, pdq_of_jpeg
from manifests.files import write_table
from manifests.publishing import RunOver
from manifests.schema import COLUMNS, DIGESTS
from manifests.shards import read_shard
from manifests.tombstones import value_digest
from pipeline.execution.in_flight import InFlight, Part, read_part
from pipeline.execution.reuse import set_aside
from pipeline.execution.step import Unit
from pipeline.inputs.files import InputFile
from pipeline.steps.fetch import worker as worker_module
from pipeline.steps.fetch.local_images import OwnPictures
from pipeline.steps.fetch.pairs import METADATA, Attempt, Result, Spool
from pipeline.steps.fetch.worker import FetchWorker
from tests.support.picture_files import encode
from tests.support.records import uid
from tests.support.refusing_files import jpeg_with, refusing, standard
from tests.support.small_web import jpeg, picture

NAMES = ("0.jpg", "none.jpg", "2.jpg", "page.jpg")
"""Two pictures, one that is not there, one that is no picture."""


def planned(root, urls):
    """Write a plan of these URLs; return its unit."""
    rows = [
        {"uid": uid(n), "source": "a", "source_row": n, "url": url, "text": f"number {n}", **dict.fromkeys(METADATA)}
        for n, url in enumerate(urls)
    ]
    types = {"uid": pa.binary(16), "source": pa.string(), "source_row": pa.int64(), "url": pa.string()}
    types |= {"text": pa.string(), **dict.fromkeys(METADATA, pa.string())}
    write_table(root / "plan.parquet", pa.Table.from_pylist(rows, schema=pa.schema(types)))
    return Unit("00000", {"plan": "plan.parquet", "made_by": "x"}, "", "key")


@pytest.fixture
def local(tmp_path):
    """Return (worker, unit) of pictures that came with the input."""
    folder = tmp_path / "p"
    folder.mkdir()
    for number in (0, 2):
        (folder / f"{number}.jpg").write_bytes(jpeg(picture(number, 40 + number, 50)))
    (folder / "page.jpg").write_bytes(b"<html>sorry</html>")
    own = OwnPictures({"a": InputFile("a", "a", 1, "", pictures=str(folder))}, 10**6)
    root = tmp_path / "run"
    return FetchWorker(root, FetchConfig(), ImageLimits(), SiteCache(), own), planned(root, NAMES)


def ledger(root):
    """Return (number of the uid, attempt, status, reason) of the ledger's rows."""
    rows = pq.read_table(root / "ledger" / "fetch" / "00000.parquet").to_pylist()
    return [(row["uid"][0], row["attempt"], row["http_status"], row["reason"]) for row in rows]


def test_what_was_fetched_while_the_run_s_own_server_went_is_no_result(local):
    """The demo's server ends with a command that is killed; workers of an engine go on, and found all pictures gone."""
    worker, unit = local
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        replace(worker, serving=address).run(unit, InFlight())
    (worker.root / "ledger" / "fetch" / "00000.parquet").unlink()
    with pytest.raises(RunOver, match=f"served at {address} has ended; nothing was put"):
        replace(worker, serving=address).run(unit, InFlight())
    assert not (worker.root / "ledger" / "fetch" / "00000.parquet").exists()


def test_every_planned_row_has_its_result_and_pictures_their_place(local):
    worker, unit = local
    record = worker.run(unit, InFlight())
    assert ledger(worker.root) == [
        (0, 1, None, None),
        (1, 1, None, "missing_file"),
        (2, 1, None, None),
        (3, 1, None, "not_an_image"),
    ]
    assert (record.rows_in, record.rows_out, record.dropped) == (4, 2, {"missing_file": 1, "not_an_image": 1})
    pairs = dict(read_shard(worker.root / "pairs" / "00000.tar"))
    assert list(pairs) == [uid(0).hex(), uid(2).hex()]
    assert pairs[uid(2).hex()]["jpg"] == jpeg(picture(2, 42, 50))
    assert pairs[uid(2).hex()]["txt"] == b"number 2"
    table = pq.read_table(worker.root / "pairs" / "00000.parquet")
    assert table["sha256"].to_pylist()[2] == hashlib.sha256(jpeg(picture(2, 42, 50))).hexdigest()
    assert table["width"].to_pylist() == [40, None, 42, None]
    assert [file.path for file in record.files] == [
        "pairs/00000.tar",
        "pairs/00000.parquet",
        "pairs/00000_stats.json",
        "ledger/fetch/00000.parquet",
    ]


def test_failures_are_logged_once_each_by_uid_and_a_second_run_appends(local):
    worker, unit = local
    for runs in (1, 2):
        worker.run(unit, InFlight())
        lines = (worker.root / "logs" / "fetch" / "00000.jsonl").read_text().splitlines()
        assert [json.loads(line)["reason"] for line in lines] == ["missing_file", "not_an_image"] * runs
    assert json.loads(lines[0])["uid"] == uid(1).hex()


def test_a_poisoned_row_is_not_opened(local):
    worker, unit = local
    record = worker.run(unit, InFlight(crash_counts={uid(0).hex(): 3}))
    assert ledger(worker.root)[0] == (0, 1, None, "worker_died")
    assert record.dropped == {"missing_file": 1, "not_an_image": 1, "worker_died": 1}


def test_each_answer_is_in_hand_alone_while_its_picture_is_opened(local):
    worker, unit = local
    held = []

    class Noting(InFlight):
        def _write(self, held_):
            held.append([int(key[:2]) for key in held_.get("uids", [])])

    worker.run(unit, Noting())
    assert held == [[0], [], [1], [], [2], [], [3], []]


def test_what_an_earlier_plan_settled_is_not_asked_for(local):
    worker, unit = local
    first = worker.run(unit, InFlight())
    set_aside(worker.root, "fetch", [first])
    gone = OwnPictures({"a": InputFile("a", "a", 1, "", pictures="/nowhere")}, 10**6)
    again = replace(worker, own=gone, details=[])
    assert again.run(unit, InFlight()).files == first.files
    retried = again.run(replace(unit, reads={**unit.reads, "again": ["not_an_image"]}), InFlight())
    assert retried.dropped == {"missing_file": 2}
    assert ledger(worker.root)[3:] == [(3, 1, None, "not_an_image"), (3, 2, None, "missing_file")]


@pytest.mark.parametrize("carried", [False, True])
def test_a_removed_picture_is_not_stored_under_whatever_url(local, carried):
    worker, unit = local
    barred = frozenset([value_digest(hashlib.sha256(jpeg(picture(2, 42, 50))).hexdigest())])
    set_aside(worker.root, "fetch", [worker.run(unit, InFlight())] if carried else [])
    record = replace(worker, barred=barred).run(unit, InFlight())
    assert record.dropped == {"missing_file": 1, "not_an_image": 1, "removed": 1}
    assert [key for key, _ in read_shard(worker.root / "pairs" / "00000.tar")] == [uid(0).hex()]


def test_a_picture_that_was_set_aside_is_not_carried_over_once_it_is_removed(tmp_path):
    barred = frozenset([value_digest(hashlib.sha256(b"gone").hexdigest())])
    worker = FetchWorker(tmp_path, FetchConfig(), ImageLimits(), SiteCache(), barred=barred)
    with open(tmp_path / "spool", "w+b") as file:
        spool = Spool(file)
        gone, stays = (
            Result((Attempt(200),), Stored(b"", 1, 1, 1, 1), *spool.put(data)) for data in (b"gone", b"here")
        )
        assert worker._obeying(gone, spool) == Result((Attempt(200, "removed"),))
        assert worker._obeying(stays, spool) == stays


def test_from_the_web_the_same_pairs_come_with_their_status(tmp_path, web):
    config = FetchConfig(
        allow_addresses=["127.0.0.0/8"], connect_to={"pictures.test": web}, host_rate=10_000, user_agent="t/1 (a@b.org)"
    )
    worker = FetchWorker(tmp_path, config, ImageLimits(store_side=64), SiteCache())
    urls = [f"http://pictures.test/{name}" for name in NAMES]
    record = worker.run(planned(tmp_path, [*urls, "ftp://pictures.test/4.jpg"]), InFlight())
    assert ledger(tmp_path) == [
        (0, 1, 200, None),
        (1, 1, 404, "http_404"),
        (2, 1, 200, None),
        (3, 1, 200, "not_an_image"),
        (4, 1, None, "blocked_scheme"),
    ]
    assert record.rows_out == 2
    row = pq.read_table(tmp_path / "pairs" / "00000.parquet").to_pylist()[0]
    assert [row[name] for name in ("width", "height", "original_width", "original_height")] == [64, 64, 96, 96]


def test_the_driver_is_told_how_far_the_shard_is(tmp_path, web):
    config = FetchConfig(
        allow_addresses=["127.0.0.0/8"], connect_to={"pictures.test": web}, host_rate=10_000, user_agent="t/1 (a@b.org)"
    )
    worker = FetchWorker(tmp_path, config, ImageLimits(store_side=64), SiteCache())
    path = tmp_path / "fetch-0.in_flight"
    worker.run(planned(tmp_path, [f"http://pictures.test/{name}" for name in NAMES]), InFlight(path))
    assert read_part(path) == Part("00000", 4, 4)


CAPTIONS = [
    *["http://pictures.test/2.jpg"] * 18,
    "http://pictures.test/none.jpg",
    "HTTP://Pictures.test.:80/x/../2.jpg?#top",
    "http:\\\\pictures.test\\%32%2ejpg",
    "http://pictures.test/./n%6Fne.jpg",
    "ftp://pictures.test/2.jpg",
    "ftp://pictures.test/2.jpg",
]
"""One picture under 20 captions and three spellings, one that is not there under two, and one that nobody asks for."""


def of_captions(tmp_path, web, **settings):
    known = {"allow_addresses": ["127.0.0.0/8"], "connect_to": {"pictures.test": web}, "host_rate": 10_000}
    config = FetchConfig.model_validate({**known, "user_agent": "t/1 (a@b.org)", **settings})
    return FetchWorker(tmp_path, config, ImageLimits(), SiteCache()), planned(tmp_path, CAPTIONS)


def test_a_url_under_20_captions_is_asked_for_once_and_each_row_has_its_pair(tmp_path, web):
    worker, unit = of_captions(tmp_path, web)
    before = len(web.hits)
    record = worker.run(unit, InFlight())
    assert sorted(hit for hit in web.hits[before:] if hit.endswith(".jpg")) == ["/2.jpg", "/none.jpg"]
    there = [*range(18), 19, 20]
    assert ledger(tmp_path) == [
        *[(n, 1, 200, None) for n in range(18)],
        (18, 1, 404, "http_404"),
        *[(n, 1, 200, None) for n in (19, 20)],
        (21, 1, 404, "http_404"),
        *[(n, 1, None, "blocked_scheme") for n in (22, 23)],
    ]
    assert (record.rows_out, record.dropped) == (20, {"blocked_scheme": 2, "http_404": 2})
    pairs = list(read_shard(tmp_path / "pairs" / "00000.tar"))
    assert [key for key, _ in pairs] == [uid(n).hex() for n in there]
    assert [sample["txt"].decode() for _, sample in pairs] == [f"number {n}" for n in there]
    assert len({sample["jpg"] for _, sample in pairs}) == 1
    table = pq.read_table(tmp_path / "pairs" / "00000.parquet")
    assert table["url"].to_pylist() == CAPTIONS  # as written
    lines = (tmp_path / "logs" / "fetch" / "00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["uid"] for line in lines] == [uid(n).hex() for n in (18, 21, 22, 23)]


def test_img2dataset_is_handed_a_url_once_too(tmp_path, web):
    worker, unit = of_captions(tmp_path, web, engine="img2dataset", deadline_s=5)
    before = len(web.hits)
    record = worker.run(unit, InFlight())
    assert sorted(hit for hit in web.hits[before:] if hit.endswith(".jpg")) == ["/2.jpg", "/none.jpg"]
    assert (record.rows_out, record.dropped) == (20, {"blocked_scheme": 2, "http_404": 2})


def test_rows_of_one_url_that_are_asked_again_are_asked_once_and_keep_their_own_attempts(tmp_path, web):
    worker, unit = of_captions(tmp_path, web)
    first = worker.run(unit, InFlight(crash_counts={uid(21).hex(): 3}))
    assert first.dropped == {
        "blocked_scheme": 2,
        "worker_died": 2,
    }  # the other caption of /none.jpg is not tried either
    set_aside(tmp_path, "fetch", [first])
    before = len(web.hits)
    again = worker.run(unit, InFlight())
    assert [hit for hit in web.hits[before:] if hit.endswith(".jpg")] == ["/none.jpg"]
    assert again.dropped == {"blocked_scheme": 2, "http_404": 2}
    assert [row for row in ledger(tmp_path) if row[0] in (18, 21)] == [
        (18, 1, None, "worker_died"),
        (18, 2, 404, "http_404"),
        (21, 1, None, "worker_died"),
        (21, 2, 404, "http_404"),
    ]


def test_a_picture_that_refuses_training_within_itself_is_not_stored(local):
    worker, unit = local
    picture_file = jpeg_with(standard(refusing("DMI-PROHIBITED")))
    (worker.root.parent / "p" / "0.jpg").write_bytes(picture_file)
    record = worker.run(unit, InFlight())
    assert (record.rows_out, record.dropped) == (1, {"missing_file": 1, "not_an_image": 1, "opted_out": 1})
    rows = pq.read_table(worker.root / "ledger" / "fetch" / "00000.parquet").to_pylist()
    value = "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"
    assert (rows[0]["reason"], rows[0]["rule"], rows[0]["value"]) == ("opted_out", "XMP plus:DataMining", value)
    assert b"useplus" not in b"".join(path.read_bytes() for path in (worker.root / "pairs").iterdir())
    worker = replace(worker, config=FetchConfig(opt_outs=["noai"]))
    assert worker.run(unit, InFlight()).rows_out == 2


def test_a_picture_that_refuses_and_that_a_list_of_pdq_names_is_removed(local):
    worker, unit = local
    plain = (worker.root.parent / "p" / "0.jpg").read_bytes()
    picture_file = jpeg_with(standard(refusing("DMI-PROHIBITED")))
    (worker.root.parent / "p" / "0.jpg").write_bytes(picture_file)
    named = pdq_of_jpeg(picture_file)
    assert plain != picture_file
    record = replace(worker, named=lists_of("pdq", named)).run(unit, InFlight())
    assert (record.dropped["removed"], "opted_out" in record.dropped) == (1, False)


def lists_of(kind, *values, name="hashes.txt", radius=0):
    """Return a list of digests in hex."""
    return DigestLists((Listed(kind, name, pa.array([bytes.fromhex(v) for v in values], COLUMNS[kind].type), radius),))


def test_digests_stand_in_pairs_in_the_sample_and_in_the_ledger_of_failures_too(local):
    worker, unit = local
    worker.run(unit, InFlight())
    wanted = replace(digests_of(jpeg(picture(2, 42, 50))), pdq=pdq(picture_of(jpeg(picture(2, 42, 50)))))
    row = pq.read_table(worker.root / "pairs" / "00000.parquet").to_pylist()[2]
    assert {name: row[name] for name in DIGESTS} == vars(wanted)
    sample = json.loads(dict(read_shard(worker.root / "pairs" / "00000.tar"))[uid(2).hex()]["json"])
    assert {name: sample[name] for name in DIGESTS} == vars(wanted)
    attempts = pq.read_table(worker.root / "ledger" / "fetch" / "00000.parquet").to_pylist()
    assert [row["md5"] for row in attempts] == [
        hashlib.md5(jpeg(picture(0, 40, 50))).digest(),
        None,  # nothing came
        hashlib.md5(jpeg(picture(2, 42, 50))).digest(),
        hashlib.md5(b"<html>sorry</html>").digest(),
    ]
    assert [row["pdq"] is None for row in attempts] == [False, True, False, True]


def picture_of(data):
    return open_picture(data, ImageLimits())


@pytest.mark.parametrize("kind", ["md5", "sha1", "source_sha256"])
def test_what_a_list_names_is_not_decoded_and_nothing_of_it_is_written(local, kind, monkeypatch):
    worker, unit = local
    decoded = []
    gate = worker_module.store
    monkeypatch.setattr(worker_module, "store", lambda data, limits: decoded.append(data) or gate(data, limits))
    named = lists_of(kind, getattr(digests_of(jpeg(picture(2, 42, 50))), kind))
    record = replace(worker, named=named).run(unit, InFlight())
    assert record.dropped == {"missing_file": 1, "not_an_image": 1, "removed": 1}
    assert jpeg(picture(2, 42, 50)) not in decoded
    assert len(decoded) == 2
    row = pq.read_table(worker.root / "pairs" / "00000.parquet").to_pylist()[2]
    told = {name: value for name, value in row.items() if value is not None}
    assert told == {"key": uid(2).hex(), "status": "failed_to_download", "error_message": "removed"}
    attempt = pq.read_table(worker.root / "ledger" / "fetch" / "00000.parquet").to_pylist()[2]
    assert (attempt["reason"], attempt["rule"]) == ("removed", "list of hashes hashes.txt")
    assert [attempt[name] for name in DIGESTS] == [None] * 4
    lines = (worker.root / "logs" / "fetch" / "00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["missing_file", "not_an_image"]


def test_pdq_is_asked_after_decoding_and_before_disk(local, monkeypatch):
    worker, unit = local
    spooled = []
    put = Spool.put
    monkeypatch.setattr(Spool, "put", lambda spool, data: spooled.append(data) or put(spool, data))
    named = lists_of("pdq", pdq(picture_of(jpeg(picture(2, 42, 50)))))
    assert replace(worker, named=named).run(unit, InFlight()).dropped["removed"] == 1
    assert spooled == [jpeg(picture(0, 40, 50))]


def test_what_was_carried_over_is_held_against_a_list_that_came_since(local):
    worker, unit = local
    set_aside(worker.root, "fetch", [worker.run(unit, InFlight())])
    named = lists_of("md5", hashlib.md5(jpeg(picture(2, 42, 50))).hexdigest())
    gone = OwnPictures({"a": InputFile("a", "a", 1, "", pictures="/nowhere")}, 10**6)
    again = replace(worker, own=gone, details=[], named=named)
    assert again.run(unit, InFlight()).dropped == {"missing_file": 1, "not_an_image": 1, "removed": 1}
    assert [key for key, _ in read_shard(worker.root / "pairs" / "00000.tar")] == [uid(0).hex()]


@pytest.mark.parametrize("keep", [False, True])
def test_only_the_picture_itself_reaches_the_tar_unless_the_recipe_keeps_metadata(local, tmp_path, keep):
    """A comment, a place, and 768 KB behind the end mark; of a picture that lies there in half, nothing."""
    worker, unit = local
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 24.0)}
    plain = encode(picture(0), "JPEG")
    told = encode(picture(0), "JPEG", exif=exif, comment=b"hello")
    payload = bytes(range(256)) * 3_000
    (tmp_path / "p" / "0.jpg").write_bytes(told + payload)
    (tmp_path / "p" / "2.jpg").write_bytes(plain[: len(plain) // 2] + plain[-2:])
    record = replace(worker, limits=ImageLimits(keep_metadata=keep)).run(unit, InFlight())
    assert record.dropped == {"missing_file": 1, "not_an_image": 1, "truncated": 1}
    ((_, sample),) = read_shard(worker.root / "pairs" / "00000.tar")
    assert sample["jpg"] == (told if keep else plain)
    assert payload[:4096] not in (worker.root / "pairs" / "00000.tar").read_bytes()


def test_a_repair_gets_back_what_a_shard_of_before_stored_with_all_it_held(local, tmp_path):
    """Such shards have files that fitted as they came; without their bytes the shard could not come out the same."""
    worker, unit = local
    came = [encode(picture(0), "JPEG", comment=b"hello"), encode(picture(2), "JPEG", comment=b"you") + b"behind"]
    for number, data in zip((0, 2), came, strict=True):
        (tmp_path / "p" / f"{number}.jpg").write_bytes(data)
    wanted = {**unit.reads, "as_received": (hashlib.sha256(came[0]).hexdigest(),)}
    worker.run(replace(unit, reads=wanted), InFlight())
    (_, first), (_, second) = read_shard(worker.root / "pairs" / "00000.tar")
    assert (first["jpg"], second["jpg"]) == (came[0], encode(picture(2), "JPEG"))
    note = json.loads(first["json"])
    assert (note["width"], note["original_height"]) == picture(0).size
