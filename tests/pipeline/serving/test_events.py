"""What a stream tells, and what it leaves out."""

import asyncio
import json

import pytest

from pipeline.sampling.pick import Sampling
from pipeline.serving import events
from pipeline.serving.events import Streams, event
from pipeline.serving.limits import Limits, Refused
from pipeline.serving.tickets import Tickets
from pipeline.serving.wish import Wish


def test_an_event_is_two_lines_whatever_the_text():
    said = event("done", {"text": "two\nlines\r\nand \u2028 one"})
    assert said.count(b"\n") == 3
    assert json.loads(said.split(b"data: ")[1]) == {"text": "two\nlines\r\nand \u2028 one"}


def test_the_latest_state_is_told_without_a_backlog():
    async def told():
        tickets = Tickets(Limits(), slots=1)
        ticket = tickets.ask(Wish("x", Sampling(seed=1)), "a")
        with Streams(tickets, 4).watching([ticket.id, ticket.id], "a") as (watched, news):
            stream = Streams(tickets, 4).events(watched, news)
            said = [await anext(stream)]
            tickets.begin(0)
            for rows in (1, 2, 3):
                ticket.png, ticket.rows = b"rows %d" % rows, rows
                ticket.changed()
            said.append(await anext(stream))
            tickets.end(ticket, "done", png=b"png")
            said += [one async for one in stream]
        return [(one.split(b"\n")[0], json.loads(one.split(b"data: ")[1])) for one in said]

    first, second, third = asyncio.run(told())
    assert (first[0], first[1]["ahead"]) == (b"event: waiting", 0)
    assert (second[0], second[1]["rows"], second[1]["png"]) == (b"event: drawing", 3, "cm93cyAz")
    assert third[0] == b"event: done"
    assert "png" not in third[1]


def test_a_stream_without_news_carries_a_comment(monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT", 0.001)

    async def said():
        tickets = Tickets(Limits(grace=0), slots=1)
        ticket = tickets.ask(Wish("x", Sampling()), "a")
        with Streams(tickets, 4).watching([ticket.id], "a") as watched:
            stream = Streams(tickets, 4).events(*watched)
            return [await anext(stream), await anext(stream)][1]

    assert asyncio.run(said()) == b": still here\n\n"


def test_streams_are_counted_down_and_refusals_leave_no_watcher():
    async def check():
        tickets = Tickets(Limits(streams=1), slots=1)
        ticket, streams = tickets.ask(Wish("x", Sampling()), "a"), Streams(tickets, 4)
        for names in ([ticket.id, "9-0"], [f"{n}-0" for n in range(33)]):
            with pytest.raises(Refused), streams.watching(names, "a"):
                pass
        more = streams.watching([ticket.id], "b")
        with streams.watching([ticket.id], "a"), pytest.raises(Refused, match="too many"):
            more.__enter__()
        assert (streams.open.total(), ticket.watchers) == (0, set())

    asyncio.run(check())
