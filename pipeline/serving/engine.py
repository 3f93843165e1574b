"""What draws: slots that pictures join and leave at any step. The server knows no more of the model than this."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.serving.wish import Wish


@dataclass(frozen=True)
class Facts:
    """What the page and /status say of a model."""

    says: str  # the model, its tokenizer and its text features, stand-ins named
    classes: int | None  # None: it takes prompts
    grid: int  # codes a row, and rows
    size: int  # pixels a side


class Engine(Protocol):
    """Pictures in the making, each in a slot of its own. One thread calls it."""

    facts: Facts
    slots: int

    def join(self, slot: int, wish: Wish) -> None:
        """Begin a picture in a free slot. Raises ValueError for a wish that cannot be drawn."""
        ...

    def step(self) -> dict[int, int]:
        """Draw the next code in every taken slot whose picture lacks one; return slot -> code."""
        ...

    def leave(self, slot: int) -> None:
        """Free a slot, whether its picture is whole or not."""
        ...

    def picture(self, codes: Sequence[int], wish: Wish) -> bytes:
        """Return the PNG of a whole picture, or of its rows so far with nothing below them."""
        ...


def draw_for(engine: Engine, seconds: float, lacking: dict[int, int]) -> dict[int, list[int]]:
    """Draw codes until this time is over or a picture is whole; at least one each. lacking: slot -> codes that its
    picture lacks. Returns slot -> its new codes."""
    until = time.monotonic() + seconds
    drawn: dict[int, list[int]] = {slot: [] for slot in lacking}
    while True:
        for slot, code in engine.step().items():
            drawn[slot].append(code)
        whole = any(len(drawn[slot]) >= count for slot, count in lacking.items())
        if whole or time.monotonic() >= until:
            return drawn
