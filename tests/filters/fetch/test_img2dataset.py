"""filters/fetch/img2dataset.py: its downloader's words become our reasons, every row comes back, and what it may not
get is refused."""

import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from filters.fetch.config import FetchConfig
from filters.fetch.digests import Digests
from filters.fetch.img2dataset import download, reason_of_download, reason_of_picture
from filters.fetch.messages import Download, Request
from filters.fetch.optout import Receipt
from filters.images.jpeg import XMP, segment
from manifests.shards import read_shard
from tests.support.commands import run_with_workers
from tests.support.hostile_server import HostileServer
from tests.support.picture_files import LIMITS, corners, encode
from tests.support.refusing_files import VOCAB, refusing
from tests.support.small_web import RECIPE, write_input, write_recipe

PICTURE = encode(corners(), "JPEG")
PATHS = {
    "/p.jpg": None,
    "/large.png": None,
    "/refusing.jpg": "opted_out",
    "/noai.jpg": "opted_out",
    "/html": "corrupt",
    "/cut.jpg": "corrupt",
    "/half.jpg": "truncated",
    "/payload.jpg": None,
    "/million.png": "too_many_pixels",
    "/empty": "empty_body",
    "/404": "http_404",
    "/503": "http_503",
    "/too-short": "incomplete_body",
    "/chunks-cut": "incomplete_body",
    "/reset": "connection",
    "/closed": "connection",
    "/garbage": "bad_response",
    "/redirect-self": "too_many_redirects",
    "/redirect-on": "too_many_redirects",
    "/redirect-file": "blocked_scheme",
    "/silent": "timeout",
}
ELSEWHERE = {
    "file:///etc/passwd": "blocked_scheme",
    "ftp://hostile.example/x": "blocked_scheme",
    "http://10.0.0.1/x": "blocked_address",
    "http://2852039166/latest/meta-data/": "blocked_address",  # 169.254.169.254
    "http://nowhere.invalid/": "dns",
    "not a url": "bad_url",
}
WITH_COMMENT = encode(corners(), "JPEG", comment=b"a place")
LARGE = encode(corners(480, 320), "PNG")
BEHAVIOURS = {
    "/p.jpg": lambda x: x.answer(PICTURE),
    "/large.png": lambda x: x.answer(LARGE),
    "/refusing.jpg": lambda x: x.answer(PICTURE[:20] + segment(0xE1, XMP + refusing()) + PICTURE[20:]),
    "/noai.jpg": lambda x: x.answer(PICTURE, "200 OK", "X-Robots-Tag: noai"),
    "/half.jpg": lambda x: x.answer(PICTURE[:-30] + PICTURE[-2:]),
    "/payload.jpg": lambda x: x.answer(WITH_COMMENT + b"a payload"),
    "/cut.jpg": lambda x: x.answer(PICTURE[:300]),
    "/million.png": lambda x: x.answer(encode(Image.new("1", (2000, 1000)), "PNG")),
}


@pytest.fixture(scope="module")
def downloads() -> dict[str, Download]:
    with HostileServer(behaviours=BEHAVIOURS) as server:
        urls = {path: server.url(path) for path in PATHS} | {url: url for url in ELSEWHERE}
        requests = [Request(number.to_bytes(16, "big"), url) for number, url in enumerate(urls.values())]
        config = FetchConfig(allow_addresses=["127.0.0.0/8"], connect_to=server.connect_to, deadline_s=2, concurrency=8)
        got = {one.uid: one for one in download(requests, config, LIMITS)}
        assert len(server.requests) > len(PATHS)
    assert set(got) == {request.uid for request in requests}
    return {name: got[request.uid] for name, request in zip(urls, requests, strict=True)}


@pytest.mark.parametrize(("name", "reason"), [*PATHS.items(), *ELSEWHERE.items()])
def test_each_end_has_its_reason(name: str, reason: str | None, downloads: dict[str, Download]) -> None:
    assert downloads[name].reason == reason
    assert (downloads[name].stored is None) == (reason is not None)


def test_pictures_statuses_and_receipts(downloads: dict[str, Download]) -> None:
    kept, small = downloads["/p.jpg"].stored, downloads["/large.png"].stored
    assert kept is not None
    assert kept.jpeg == PICTURE
    stripped = downloads["/payload.jpg"].stored
    assert stripped is not None
    assert stripped.jpeg == PICTURE
    assert small is not None
    assert Image.open(io.BytesIO(small.jpeg)).size == (96, 64) == (small.width, small.height)
    assert (small.original_width, small.original_height) == (480, 320)
    assert [downloads[name].status for name in ("/p.jpg", "/html", "/404", "/silent")] == [200, 200, 404, None]
    assert downloads["/p.jpg"].digests == Digests(md5=hashlib.md5(PICTURE).hexdigest())  # it takes one of them
    assert downloads["/large.png"].digests == Digests(md5=hashlib.md5(LARGE).hexdigest())  # as received
    receipt = downloads["/noai.jpg"].receipt
    assert receipt is not None
    assert receipt.rule == "X-Robots-Tag"
    assert downloads["/refusing.jpg"].receipt == Receipt("XMP plus:DataMining", f"{VOCAB}DMI-PROHIBITED-AIMLTRAINING")


def test_words_that_the_small_web_does_not_say() -> None:
    assert reason_of_download("<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed>") == (
        "tls",
        None,
    )
    assert reason_of_download("<urlopen error [Errno -3] Temporary failure in name resolution>") == ("dns", None)
    assert reason_of_download("<urlopen error timed out>") == ("timeout", None)
    assert reason_of_download("<urlopen error [Errno 113] No route to host>") == ("connection", None)
    assert reason_of_download("<urlopen error unknown url type: gopher>") == ("blocked_scheme", None)
    assert reason_of_download("something new") == ("bad_response", None)
    assert reason_of_picture("pixels <= CV_IO_MAX_IMAGE_PIXELS") == "too_many_pixels"
    assert reason_of_picture("something new") == "corrupt"


@pytest.mark.slow
def test_it_runs_as_the_step_does_and_leaves_the_same_layout(tmp_path: Path, web: str) -> None:
    write_input(tmp_path / "in")
    recipe = write_recipe(
        tmp_path / "recipe.toml",
        web,
        tmp_path / "in",
        tmp_path / "run",
        RECIPE.replace("[fetch]", '[fetch]\nengine = "img2dataset"'),
    )
    done = run_with_workers(recipe, "filter", "--step", "select,fetch", "--workers", 1)
    assert 'warning: fetch.engine = "img2dataset" has no cap' in done.stderr
    pairs = tmp_path / "run" / "pairs"
    table = pa.concat_tables(pq.read_table(path) for path in sorted(pairs.glob("*.parquet")))
    planned = pa.concat_tables(
        pq.read_table(path) for path in sorted((tmp_path / "run/manifests/plan/fetch").glob("*.parquet"))
    )
    assert table["key"].to_pylist() == [uid.hex() for uid in planned["uid"].to_pylist()]
    good = table.filter(pa.compute.equal(table["status"], "success"))
    keys = [(key, set(sample)) for path in sorted(pairs.glob("*.tar")) for key, sample in read_shard(path)]
    assert keys == [(key, {"jpg", "txt", "json"}) for key in good["key"].to_pylist()]
    counts = [json.loads(path.read_text()) for path in sorted(pairs.glob("*_stats.json"))]
    assert sum(count["count"] for count in counts) == table.num_rows
    assert (
        sum(count["successes"] + count["failed_to_download"] + count["failed_to_resize"] for count in counts)
        == table.num_rows
    )
    reasons = table["error_message"].drop_null().to_pylist()
    assert {reason: reasons.count(reason) for reason in set(reasons)} == {
        "http_404": 11,
        "corrupt": 1,
        "blocked_scheme": 1,
    }
