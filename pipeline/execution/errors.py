"""What stops a run: the errors that a user sees, with how to go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from manifests.files import out_of_room
from manifests.scratch import room_in


class RunFailed(RuntimeError):
    """A run ended before its work was done; the message says why and how to go on."""


@contextmanager
def clear_errors(root: Path) -> Iterator[None]:
    """Turn a full disk, wherever it shows, into a RunFailed that says how to go on; what is finished by then stays.

    `root`: the run folder.
    """
    try:
        yield
    except (OSError, duckdb.Error) as error:
        if not out_of_room(error):
            raise
        raise RunFailed(
            f"no room left to write{room_in(root)} ({error}); make room and run the same command again:"
            " finished shards stay"
        ) from error
