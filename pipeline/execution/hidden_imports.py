"""Keep out what libraries import where it is installed and nothing here uses: pandas takes a quarter of a second."""

import contextlib
import sys
from collections.abc import Iterator


def arrow_without_pandas() -> None:
    """Let pyarrow look for pandas now, and find none: it looks at the first value that it makes, once.

    Who asks it for a data frame later on gets one all the same.
    """
    import pyarrow as pa

    with hidden("pandas"):
        pa.scalar("")


class Hidden:
    """Finds none of these packages and lets nobody else: `import` raises as where they are not installed."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise ModuleNotFoundError for a hidden package."""
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r} (hidden while others are imported)", name=name)


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Let packages that are not imported yet seem to be missing while the block runs."""
    finder = Hidden(names)
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
