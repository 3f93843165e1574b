"""filters/fetch/budget.py: one budget a site for all processes of a machine, that a killed process does not keep."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from filters.fetch.budget import ASK_AGAIN_S, BUCKETS, MOST, WAYS, Share, SharedBudget, next_turn


@pytest.fixture
def pair(tmp_path: Path):  # type: ignore[no-untyped-def]
    opened = [Share(tmp_path / "budget", lane, 2).open() for lane in range(2)]
    yield opened
    for budget in opened:
        budget.close()


def test_turns_follow_each_other_at_the_pause() -> None:
    assert next_turn(0.0, 100.0, 0.5) == 100.5
    assert next_turn(100.2, 100.0, 0.5) == 100.7
    assert next_turn(0.0, 100.0, 0.05) == pytest.approx(100.0)  # up to 0.1 s of late starts are made up for


def test_pace_is_one_for_both(pair: list[SharedBudget]) -> None:
    first = pair[0].take("cdn.example", "img1.cdn.example", 0.3, 8)
    second = pair[1].take("cdn.example", "img2.cdn.example", 0.3, 8)
    other = pair[1].take("b.example", "b.example", 0.3, 8)
    assert (first.granted, second.granted, other.granted) == (True, False, True)
    assert second.at == first.at
    assert first.at - time.monotonic() == pytest.approx(0.3, abs=0.05)
    time.sleep(0.3)
    assert pair[1].take("cdn.example", "img2.cdn.example", 0.3, 8).granted


def test_a_full_disk_is_said_when_the_table_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with holes would end the process by a signal where the disk fills up later."""

    def full(file: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    budget = Share(tmp_path / "budget", 0, 1).open()
    assert os.stat(tmp_path / "budget").st_blocks * 512 >= os.path.getsize(tmp_path / "budget")
    budget.close()
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Share(tmp_path / "other", 0, 1).open()


def test_a_request_that_is_spent_puts_the_next_one_off(pair: list[SharedBudget]) -> None:
    at = pair[0].spend("cdn.example", 10)
    assert pair[1].spend("cdn.example", 10) == at + 10
    assert pair[0].take("cdn.example", "cdn.example", 0.1, 8).at == at + 10


def test_connections_are_one_number_for_both(pair: list[SharedBudget]) -> None:
    assert [pair[n % 2].take("cdn.example", "cdn.example", 0, 3).granted for n in range(4)] == [True, True, True, False]
    refused = pair[1].take("cdn.example", "cdn.example", 0, 3)
    assert refused.at - time.monotonic() == pytest.approx(ASK_AGAIN_S, abs=0.03)
    pair[0].keep("cdn.example", 1)
    assert pair[1].take("cdn.example", "cdn.example", 0, 3).granted
    assert not pair[0].take("cdn.example", "cdn.example", 0, 3).granted
    pair[1].clear()
    assert [pair[0].take("cdn.example", "cdn.example", 0, 3).granted for _ in range(3)] == [True, True, False]
    pair[1].keep("cdn.example", 0)  # what was cleared is not given back twice
    assert not pair[0].take("cdn.example", "cdn.example", 0, 3).granted


def test_an_idle_connection_is_counted_and_gives_its_place_to_the_next_request(pair: list[SharedBudget]) -> None:
    assert pair[0].take("cdn.example", "cdn.example", 0, 1).granted
    pair[0].keep("cdn.example", 1)  # none on its way, one idle
    assert not pair[1].take("cdn.example", "cdn.example", 0, 1).granted
    assert pair[0].take("cdn.example", "cdn.example", 0, None).granted
    pair[0].keep("cdn.example", 0)
    assert pair[1].take("cdn.example", "cdn.example", 0, 1).granted


def test_a_host_that_rests_rests_for_both_and_its_site_goes_on(pair: list[SharedBudget]) -> None:
    until = time.monotonic() + 100
    pair[0].rest("img1.cdn.example", until)
    pair[0].rest("img1.cdn.example", until - 50)
    refused = pair[1].take("cdn.example", "img1.cdn.example", 0, 8)
    assert (refused.granted, refused.host_at) == (False, until)
    assert pair[1].take("cdn.example", "img2.cdn.example", 0, 8).granted


def test_a_crawl_delay_is_kept_by_those_who_do_not_know_it_yet(pair: list[SharedBudget]) -> None:
    before = time.monotonic()
    assert pair[0].take("cdn.example", "slow.cdn.example", 0, 8, 30.0).granted
    refused = pair[1].take("cdn.example", "slow.cdn.example", 0, 8)
    assert (refused.granted, 30 <= refused.host_at - before < 31) == (False, True)
    pair[0].rest("quick.cdn.example", 0.0, 30.0)
    assert [pair[1].take("cdn.example", "quick.cdn.example", 0, 8).granted for _ in range(2)] == [True, False]
    assert pair[1].take("cdn.example", "img.cdn.example", 0, 8).granted


def _take_and_wait(path: Path, taken: "multiprocessing.synchronize.Event") -> None:
    budget = Share(path, 0, 2).open()
    for _ in range(3):
        budget.take("cdn.example", "cdn.example", 0, 3)
    taken.set()
    time.sleep(60)


def test_a_killed_process_keeps_no_connection_once_its_successor_runs(tmp_path: Path) -> None:
    spawning = multiprocessing.get_context("fork")
    taken = spawning.Event()
    process = spawning.Process(target=_take_and_wait, args=(tmp_path / "budget", taken), daemon=True)
    process.start()
    assert taken.wait(10)
    other = Share(tmp_path / "budget", 1, 2).open()
    assert not other.take("cdn.example", "cdn.example", 0, 3).granted
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    Share(tmp_path / "budget", 0, 2).open().close()
    assert [other.take("cdn.example", "cdn.example", 0, 3).granted for _ in range(4)] == [True, True, True, False]
    other.close()


def test_a_full_bucket_is_shared_and_nobody_is_asked_too_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bucket of eight places for ten sites: the last two wait with others, and give back what they had."""
    monkeypatch.setattr("filters.fetch.budget.BUCKETS", 1)
    budget = SharedBudget(tmp_path / "budget", 0, 1)
    granted = {name: budget.take(f"{name}.example", name, 0, 1).granted for name in "abcdefghij"}
    assert list(granted.values()) == [True] * WAYS + [False, False]
    for name in "abcdefgh":
        budget.keep(f"{name}.example", 0)
    assert budget.held == {}
    assert budget.take("i.example", "i", 0, 1).granted
    assert not budget.take("i.example", "i", 0, 1).granted
    budget.rest("x", time.monotonic() + 9)  # a place of its own is left
    assert budget.take("x.example", "x", 0, 1).host_at > 0
    budget.close()


def test_the_table_is_bounded_and_a_turn_is_cheap(tmp_path: Path) -> None:
    budget = Share(tmp_path / "budget", 3, 4).open()
    assert os.path.getsize(tmp_path / "budget") == BUCKETS * WAYS * (16 + 16 + 4)
    started = time.perf_counter()
    for number in range(2000):
        assert budget.take(f"{number}.example", f"{number}.example", 0.05, 8).granted
        budget.keep(f"{number}.example", 0)
    assert (time.perf_counter() - started) / 2000 < 0.001
    assert MOST == 255
    budget.close()
