"""The queue and what became of it."""

import asyncio

import pytest

from pipeline.sampling.pick import Sampling
from pipeline.serving.limits import Limits, Refused
from pipeline.serving.tickets import Tickets
from pipeline.serving.wish import Wish

WISH = Wish("x", Sampling())


def test_requests_come_in_order_and_know_how_many_are_ahead():
    tickets = Tickets(Limits(), slots=1)
    first, second, third = (tickets.ask(WISH, "a") for _ in range(3))
    assert [tickets.ahead(one) for one in (first, second, third)] == [0, 1, 2]
    assert tickets.begin(0) is first
    assert [tickets.ahead(one) for one in (first, second, third)] == [0, 0, 1]
    assert tickets.find(second.id) is second
    assert tickets.find(first.id) is first


def test_an_end_is_final_and_tells_those_behind():
    tickets = Tickets(Limits(), slots=1)
    first, second = tickets.ask(WISH, "a"), tickets.ask(WISH, "a")
    news = asyncio.Event()
    second.watchers.add(news)
    tickets.let_go(first)
    assert news.is_set()
    tickets.end(first, "done", png=b"late")
    assert (first.state, first.png, tickets.counts["done"]) == ("cancelled", b"", 0)
    assert tickets.record(first)["reason"] == "cancelled"


def test_nothing_grows_with_the_number_of_requests():
    tickets = Tickets(Limits(keep=3), slots=1)
    made = [tickets.ask(WISH, "a") for _ in range(5)]
    for _ in made:
        tickets.end(tickets.begin(0), "done", png=b"png")
        del tickets.drawing[0]
    assert (len(tickets.ended), len(tickets.waiting)) == (3, 0)
    for one, status in ((made[0], 410), (made[1], 410)):
        with pytest.raises(Refused, match="was let go") as refused:
            tickets.find(one.id)
        assert refused.value.status == status


@pytest.mark.parametrize("name", ["", "1", "1-", "0-0", "9" * 30 + "-0", "٣-0", "x-y", "-1-0"])
def test_what_never_was_is_not_found(name):
    tickets = Tickets(Limits(), slots=1)
    tickets.ask(WISH, "a")
    with pytest.raises(Refused, match="no such request"):
        tickets.find(name)
