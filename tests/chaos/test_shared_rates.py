"""Four processes fetch img1 to img9 of one site at once: the server counts, and one budget holds."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tests.support.counting
from filters.fetch.budget import Share
from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.messages import Request
from pipeline.execution.backends import RunnerOptions
from pipeline.recipes.load import parse_recipe
from pipeline.stages.run import StageOptions, run_stage
from tests.support.counting import Counting, most_within
from tests.support.hostile_server import Behaviour, HostileServer
from tests.support.paths import ROOT
from tests.support.small_web import jpeg, picture

RATE, CONNECTIONS, PROCESSES = 40, 3, 4


def _fetch(port: int, share: Share, number: int, urls: list[str], settings: dict[str, object], told: object) -> None:
    config = FetchConfig.model_validate(
        {
            "connect_to": {":": f"127.0.0.2:{port}"},
            "allow_addresses": ["127.0.0.2/32"],
            "host_rate": RATE,
            "host_connections": CONNECTIONS,
            **settings,
        }
    )
    requests = [Request(bytes([number, at]), url) for at, url in enumerate(urls)]
    told.put([answer.reason for answer in fetch_all(requests, config, share=share)])  # type: ignore[attr-defined]


@pytest.mark.parametrize("settings", [{"robots": False, "opt_outs": []}, {}], ids=["pictures", "with robots"])
def test_four_processes_share_the_rate_and_the_connections_of_a_site(tmp_path: Path, settings) -> None:  # type: ignore[no-untyped-def]
    counting = Counting(0.06)
    forking = multiprocessing.get_context("fork")
    told = forking.Queue()
    paths = ("/counted", "/robots.txt", "/.well-known/tdmrep.json")
    urls = [f"http://img{at % 9 + 1}.cdn.example/counted" for at in range(18)]
    with HostileServer("127.0.0.2", dict.fromkeys(paths, counting)) as server:
        workers = [
            forking.Process(
                target=_fetch,
                args=(server.port, Share(tmp_path / "budget", lane, PROCESSES), lane, urls, settings, told),
                daemon=True,
            )
            for lane in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        reasons = Counter(reason for _ in workers for reason in told.get(timeout=60))
        for worker in workers:
            worker.join(10)
    asked = counting.asked_of("cdn.example")
    files = 0 if settings else PROCESSES * 9 * 2
    assert reasons == {None: PROCESSES * len(urls)}
    assert len(asked) == PROCESSES * len(urls) + files
    assert counting.most["cdn.example"] <= CONNECTIONS
    assert most_within(asked, 0.5) <= RATE * 0.5 + 0.1 * RATE + (3 * CONNECTIONS if files else 0)
    assert (len(asked) - 1) / (asked[-1] - asked[0]) <= RATE * 1.1


@pytest.mark.slow
def test_four_workers_of_a_run_share_the_rate_and_the_connections_of_a_site(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """80 rows of nine hosts in four shards; the supervised workers ask 72 times for sites' files besides."""
    monkeypatch.setattr(tests.support.counting, "GOOD", jpeg(picture(1, 80, 80)))
    counting = Counting(0.06)
    urls = [f"http://img{at % 9 + 1}.cdn.example/counted?{at}" for at in range(80)]
    pq.write_table(pa.table({"URL": urls, "TEXT": ["a b c"] * 80}), tmp_path / "in.parquet")
    paths = ("/counted", "/robots.txt", "/.well-known/tdmrep.json")
    with HostileServer("127.0.0.2", dict.fromkeys(paths, counting)) as server:
        fetch = {
            "connect_to": {":": f"127.0.0.2:{server.port}"},
            "allow_addresses": ["127.0.0.2/32"],
            "host_rate": RATE,
            "host_connections": CONNECTIONS,
            "shard_rows": 20,
            "user_agent": "t/1 (a@b.org)",
        }
        places = {"input": {"files": str(tmp_path / "in.parquet")}, "output": {"root": str(tmp_path / "run")}}
        recipe = parse_recipe({**places, "fetch": fetch, "tier": {"a": {"size": 64}}})
        options = StageOptions(RunnerOptions(workers=PROCESSES), ("select", "fetch"))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        run_stage(recipe, "filter", options)
    asked = counting.asked_of("cdn.example")
    assert len(asked) == 80 + PROCESSES * 9 * 2
    assert counting.most["cdn.example"] <= CONNECTIONS
    assert (len(asked) - 1) / (asked[-1] - asked[0]) <= RATE * 1.1
    left = [path.name for path in (tmp_path / "run" / "logs" / "workers").iterdir()]
    assert [name for name in left if name.endswith((".budget", ".part"))] == []


def test_two_processes_keep_one_crawl_delay(tmp_path: Path) -> None:
    counting = Counting(0.0)
    forking = multiprocessing.get_context("fork")
    told = forking.Queue()
    robots: Behaviour = lambda x: x.answer(b"User-agent: *\nCrawl-delay: 0.4\n")  # noqa: E731
    urls = ["http://img1.cdn.example/counted"] * 4
    with HostileServer("127.0.0.2", {"/counted": counting, "/robots.txt": robots}) as server:
        for lane in range(2):
            share = Share(tmp_path / "budget", lane, 2)
            args = (server.port, share, lane, urls, {"opt_outs": []}, told)
            forking.Process(target=_fetch, args=args, daemon=True).start()
        assert [told.get(timeout=30), told.get(timeout=30)] == [[None] * 4] * 2
    asked = counting.asked_of("cdn.example")
    assert len(asked) == 8
    assert asked[-1] - asked[1] >= 6 * 0.4 - 0.15  # the first of each may come before either knows of the delay


def test_a_killed_process_leaves_its_connections_to_its_successor(tmp_path: Path) -> None:
    counting = Counting(0.5)
    forking = multiprocessing.get_context("fork")
    told = forking.Queue()
    quiet = {"robots": False, "opt_outs": []}
    urls = ["http://img1.cdn.example/counted"] * 6
    with HostileServer("127.0.0.2", {"/counted": counting}) as server:

        def worker(lane: int) -> multiprocessing.process.BaseProcess:
            share = Share(tmp_path / "budget", lane, 2)
            made = forking.Process(target=_fetch, args=(server.port, share, lane, urls, quiet, told), daemon=True)
            made.start()
            return made

        first = worker(0)
        until = time.monotonic() + 20
        while counting.now["cdn.example"] < CONNECTIONS and time.monotonic() < until:
            time.sleep(0.01)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        first.join()
        again, other = worker(0), worker(1)
        assert [told.get(timeout=30), told.get(timeout=30)] == [[None] * 6] * 2
        again.join(10)
        other.join(10)
    assert counting.most["cdn.example"] <= 2 * CONNECTIONS  # what the killed one had asked for is still being answered
