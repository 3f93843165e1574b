"""Tell whose run a folder is now: a token that is new each time the folder is taken, and asked before each publish.

A file is read for each one that is written: 6 µs on a local disk, where a small file takes 0.4 ms, a GET on a store.
Between the look and the rename there is a moment in which another run may begin: it sweeps, plans and reads journals
first, and records whose key it has not planned come into no manifest (see pipeline/stages/run.py).
"""

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from manifests.files import write_bytes
from manifests.publishing import RUN_TOKEN, RunOver, published_if


@contextmanager
def new_token(root: Path) -> Iterator[str]:
    """Make the folder this run's until the block ends, and nobody's after that; this thread publishes by it too.

    A process that is killed leaves its token: what works for it elsewhere goes on until the next run takes the folder.
    """
    token = secrets.token_hex(16)
    write_bytes(root / RUN_TOKEN, token.encode())
    try:
        with holding(root, token):
            yield token
    finally:
        if current_token(root) == token:
            (root / RUN_TOKEN).unlink(missing_ok=True)


def current_token(root: Path) -> str:
    """Return the token of the run that holds the folder, "" for none. Raises OSError where it cannot be read."""
    try:
        return (root / RUN_TOKEN).read_bytes().decode("ascii", "replace")
    except FileNotFoundError:
        return ""


def holding(root: Path, token: str) -> AbstractContextManager[None]:
    """Let this thread publish, while the block runs, only as long as the folder has this token; "" asks nothing."""
    return published_if(partial(need_token, root, token)) if token else nullcontext()


def need_token(root: Path, token: str) -> None:
    """Raise RunOver unless the folder is held under this token."""
    if current_token(root) != token:
        raise RunOver(f"{root}: the run that this work is for does not hold the folder any more; nothing was put there")
