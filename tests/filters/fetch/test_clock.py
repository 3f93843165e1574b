"""filters/fetch/clock.py: a deadline that stands while a file waits for its turn."""

import asyncio
import time

import pytest

from filters.fetch.clock import Clocks, origin_of
from filters.fetch.hosts import FetchTask
from filters.fetch.messages import Request


def job(left_s: float) -> FetchTask:
    return FetchTask(Request(b"uid", "u"), "http://a.example/1", "http://a.example/1", left_s, 0, taken_at=100.0)


def test_origins() -> None:
    assert origin_of("https://a.example:81/x?y") == "https://a.example:81"


def test_time_that_a_clock_stands_is_not_taken_from_the_deadline() -> None:
    async def run(one: FetchTask, other: FetchTask) -> None:
        clocks = Clocks()
        async with clocks.of(one) as clock, clocks.of(other) as late:
            with clocks.waits(clock), clocks.stand("http://a.example"), clocks.waits(late):
                await asyncio.sleep(0.5)
            await asyncio.sleep(0.1)
        assert not clocks.waiting
        assert not clocks.standing

    one, other = job(0.3), job(0.3)
    asyncio.run(run(one, other))
    for found in (one, other):
        assert found.left_s == pytest.approx(0.2, abs=0.08)
        assert found.taken_at == pytest.approx(100.5, abs=0.08)


@pytest.mark.parametrize("origin", ["http://a.example", "http://b.example"])
def test_a_deadline_ends_at_its_time_after_a_stand_and_beside_those_of_others(origin: str) -> None:
    async def run() -> None:
        clocks = Clocks()
        async with clocks.of(job(0.2)) as clock:
            with clocks.waits(clock):
                with clocks.stand(origin):
                    await asyncio.sleep(0.3)
                await asyncio.sleep(5)

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert time.monotonic() - started == pytest.approx(0.5 if origin == "http://a.example" else 0.2, abs=0.1)
