"""Hold what foreign code raises: the one place where an exception of any class becomes a value.

A library that parses other people's bytes raises what it likes. Its caller says here that any of it is a fault of the
bytes, and then turns the error into a reason; elsewhere only named classes are caught.
"""

from types import TracebackType


class Guard:
    """Keep an Exception that a block raises in `error` instead of raising it.

        with Guard() as guard:
            picture = decode(data)
        if guard.error is not None:
            return Fault(reason_of(guard.error))

    `passing`: classes that go through. KeyboardInterrupt, SystemExit, GeneratorExit and asyncio.CancelledError are no
    Exceptions and always do.
    """

    def __init__(self, passing: tuple[type[Exception], ...] = ()) -> None:
        self.passing = passing
        self.error: Exception | None = None

    def __enter__(self) -> "Guard":
        self.error = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Hold the error, and say whether it is held."""
        if isinstance(error, Exception) and not isinstance(error, self.passing):
            self.error = error
        return self.error is not None
