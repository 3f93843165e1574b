"""End a training run: after a step when asked to, or with words when it cannot go on."""

import contextlib
import signal
from collections.abc import Iterator


class TrainError(RuntimeError):
    """Training cannot go on; what is on disk stays good."""


@contextlib.contextmanager
def stop_after_step() -> Iterator[dict[str, bool]]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop after the step; a second one ends the process at once."""
    wish = {"asked": False}

    def ask(number: int, _: object) -> None:
        wish["asked"] = True
        signal.signal(number, before[number])

    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
