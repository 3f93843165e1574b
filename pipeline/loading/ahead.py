"""Take what an iterator yields some items ahead, in a thread."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")
POLL = 0.1
"""Seconds after which a thread whose items nobody takes looks whether it is to end."""


def ahead(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """Yield the items in their order, `depth` of them ahead of the one that is asked for; 0: none, without a thread.

    What the iterator raises is raised where the item was due. Closing the generator ends the thread.
    """
    if not depth:
        yield from items
        return
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    ended = threading.Event()

    def put(one: tuple[Item | None, BaseException | None]) -> bool:
        while not ended.is_set():
            try:
                waiting.put(one, timeout=POLL)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        error: BaseException = StopIteration()
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as raised:  # the consumer's thread raises it
            error = raised
        put((None, error))

    thread = threading.Thread(target=work, name="loader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        ended.set()
        thread.join()
        if close := getattr(items, "close", None):
            close()
