"""Pictures through the slots, without HTTP."""

import asyncio

import pytest

from pipeline.sampling.pick import Sampling
from pipeline.serving.drawing import MOST_FAULTS, Drawing, EngineFailed
from pipeline.serving.limits import Limits
from pipeline.serving.tickets import ENDED, Tickets
from pipeline.serving.wish import Wish
from tests.support.serving import PATIENCE, Shades

LIMITS = Limits(turn=0, preview_rows=2)


async def drawn(engine, texts, before=lambda tickets, made: None):
    """Draw the texts, and return the requests once all have ended."""
    tickets = Tickets(LIMITS, engine.slots)
    made = [tickets.ask(Wish(text, Sampling(seed=3)), "a") for text in texts]
    before(tickets, made)
    task = asyncio.create_task(Drawing(engine, tickets).run())
    async with asyncio.timeout(PATIENCE):
        while not all(one.state in ENDED for one in made) or tickets.drawing:
            await asyncio.sleep(0.001)
            if task.done():
                task.result()
    task.cancel()
    await asyncio.wait({task})
    return made


def test_more_requests_than_slots_are_drawn_together():
    engine = Shades(slots=3)
    made = asyncio.run(drawn(engine, ["a"] * 7))
    assert [one.state for one in made] == ["done"] * 7
    assert engine.most == 3
    assert (engine.joined.total(), engine.left.total()) == (7, 7)


def test_previews_are_made_for_those_who_watch_only():
    shown = {0: [], 1: []}

    def watch(tickets, made):
        made[1].watchers.add(asyncio.Event())
        for number, one in enumerate(made):
            one.changed = lambda number=number, one=one: shown[number].append((one.state, one.rows))

    asyncio.run(drawn(Shades(), ["a", "b"], watch))
    assert [rows for state, rows in shown[0] if state == "drawing" and rows] == []
    assert [rows for state, rows in shown[1] if state == "drawing" and rows] == [2]
    assert shown[0][-1][0] == shown[1][-1][0] == "done"


def test_a_caption_that_does_not_fit_leaves_the_slot_free():
    engine = Shades(slots=1)
    made = asyncio.run(drawn(engine, ["unlucky", "a"]))
    assert [(one.state, one.reason) for one in made] == [("failed", "this caption does not fit"), ("done", "")]


def test_a_model_that_fails_again_and_again_ends_the_server():
    engine = Shades(slots=1)
    engine.fault = RuntimeError("device lost")
    with pytest.raises(EngineFailed, match=f"failed {MOST_FAULTS} times in a row: device lost"):
        asyncio.run(drawn(engine, ["a"] * MOST_FAULTS))
