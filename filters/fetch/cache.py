"""Keep what was learned of hosts for a while: bounded in entries and in size, the oldest goes first."""

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """A mapping that forgets: each entry after its own time, the least recently used where there are too many."""

    def __init__(self, entries: int, size: int = 1 << 62) -> None:
        """`entries`: how many are kept; `size`: how much they may weigh together, in the unit that `put` is told."""
        self.entries, self.size, self.held = entries, size, 0
        self.kept: OrderedDict[Hashable, tuple[float, int, Value]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """Return what is kept under a key, or None."""
        found = self.kept.get(key)
        if found is None:
            return None
        if found[0] <= time.monotonic():
            self._drop(key)
            return None
        self.kept.move_to_end(key)
        return found[2]

    def put(self, key: Hashable, value: Value, seconds: float, size: int = 1) -> None:
        """Keep a value for so many seconds."""
        self._drop(key)
        self.kept[key] = (time.monotonic() + seconds, size, value)
        self.held += size
        while len(self.kept) > self.entries or (self.held > self.size and len(self.kept) > 1):
            self._drop(next(iter(self.kept)))

    def _drop(self, key: Hashable) -> None:
        if found := self.kept.pop(key, None):
            self.held -= found[1]
