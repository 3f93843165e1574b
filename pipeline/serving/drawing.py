"""Let requests share one decode: each joins a slot as soon as one is free, others being in the middle of theirs.

All state lives on the event loop; the engine is called in one thread beside it, for a short turn at a time. Between two
turns the finished and the cancelled leave their slots, and those that wait join.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from pipeline.serving.engine import Engine, draw_for
from pipeline.serving.tickets import ENDED, Ticket, Tickets

MOST_FAULTS = 3
P = ParamSpec("P")
T = TypeVar("T")
Faults = (RuntimeError, ValueError, OSError)
"""What a model may raise over one picture: its device's memory, a caption that does not fit, a file that is gone."""


class EngineFailed(RuntimeError):
    """The model failed at several turns in a row: the server has nothing left to do."""


def log(text: str) -> None:
    """Write a line to stderr: the time of day, what happened. No prompt is ever in it."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Drawing:
    """Takes pictures through the engine's slots."""

    def __init__(self, engine: Engine, tickets: Tickets, thread: ThreadPoolExecutor | None = None) -> None:
        """thread: one thread, in which the engine was made; it ends with the drawing."""
        self.engine, self.tickets, self.limits = engine, tickets, tickets.limits
        self.codes = engine.facts.grid**2
        self.drawn, self.busy = 0, 0.0  # codes; seconds in which they were drawn
        self._thread = thread or ThreadPoolExecutor(1, "draw")
        self._faults = 0

    async def run(self) -> None:
        """Draw until cancelled. Raises EngineFailed after MOST_FAULTS turns in a row that failed."""
        try:
            while True:
                await self.tickets.wanted.wait()
                await self._clear()
                await self._fill()
                if self.tickets.drawing:
                    await self._turn()
                elif not self.tickets.waiting:
                    self.tickets.wanted.clear()
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)

    async def _call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args, **kwargs))

    async def _clear(self) -> None:
        """Free the slots of pictures that have ended."""
        for slot in [slot for slot, ticket in self.tickets.drawing.items() if ticket.state in ENDED]:
            await self._call(self.engine.leave, slot)
            del self.tickets.drawing[slot]

    async def _fill(self) -> None:
        """Let those that wait join the free slots."""
        for slot in range(self.engine.slots):
            if slot in self.tickets.drawing or not self.tickets.waiting:
                continue
            ticket = self.tickets.begin(slot)
            try:
                await self._call(self.engine.join, slot, ticket.wish)
            except Faults as error:
                del self.tickets.drawing[slot]
                self._fail(ticket, error)

    async def _turn(self) -> None:
        """Draw for a moment, then show and finish what is ready."""
        taken = dict(self.tickets.drawing)
        lacking = {slot: self.codes - len(ticket.codes) for slot, ticket in taken.items()}
        began = time.monotonic()
        try:
            drawn = await self._call(draw_for, self.engine, self.limits.turn, lacking)
        except Faults as error:
            self._faults += 1
            for ticket in taken.values():
                self._fail(ticket, error)
            if self._faults >= MOST_FAULTS:
                raise EngineFailed(f"drawing failed {MOST_FAULTS} times in a row: {error}") from error
            return
        self._faults = 0
        self.busy += time.monotonic() - began
        self.drawn += sum(len(codes) for codes in drawn.values())
        for slot, codes in drawn.items():
            if taken[slot].state not in ENDED:
                taken[slot].codes += codes
                await self._show(taken[slot])

    async def _show(self, ticket: Ticket) -> None:
        """Make the picture of a whole request; of another a preview, where it has new rows and a watcher."""
        rows, every = len(ticket.codes) // self.engine.facts.grid, self.limits.preview_rows
        whole = len(ticket.codes) == self.codes
        if not whole and not (every and ticket.watchers and rows // every > ticket.rows // every):
            return
        try:
            png = await self._call(self.engine.picture, list(ticket.codes), ticket.wish)
        except Faults as error:
            self._fail(ticket, error)
            return
        if ticket.state in ENDED:  # cancelled meanwhile
            return
        if whole:
            self.tickets.end(ticket, "done", png=png)
            now = time.monotonic()
            log(f"drew {ticket.id} in {now - (ticket.begun or now):.1f} s, {now - ticket.asked:.1f} s after it came")
        else:
            ticket.png, ticket.rows = png, rows
            ticket.changed()

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        says = (str(error).splitlines() or [type(error).__name__])[0][:300]
        log(f"failed {ticket.id}: {says}")
        self.tickets.end(ticket, "failed", reason=says)
