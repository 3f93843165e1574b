"""Give each worker process that an engine starts a GPU of its machine: whoever holds a card's lock file has the card.

The lock goes when the process ends, however that comes. Where all cards have a worker the next one shares one of those
with the fewest, and says so: it is what more workers than cards mean on this machine's own runner too, and a process
whose card was just freed must not fail because its predecessor has not ended yet.
"""

import fcntl
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import IO

from pipeline.execution.environment import VISIBLE, gpus

FOLDER = "tessera-cards"
"""In the machine's own temporary folder: no other machine's workers compete."""
MOST_SHARED = 64
_claimed: tuple[str, IO[bytes]] | None = None


def claim_card() -> str:
    """Let this process see one card of those that it may see, the same at each call; return it, "" where there is none.

    For before CUDA is started; after that it would change nothing, and nothing is claimed.
    """
    global _claimed
    if _claimed is not None:
        return _claimed[0]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return ""
    cards = gpus()
    for others in range(MOST_SHARED if cards else 0):
        for card in cards:
            if (lock := _lock(card, others)) is not None:
                _claimed = card, lock
                os.environ[VISIBLE] = card
                if others:
                    print(
                        f"all {len(cards)} GPUs of this machine have a worker: GPU {card} has {others + 1} now; start"
                        " as many workers a machine as it has GPUs (runner.workers_per_machine)",
                        file=sys.stderr,
                    )
                return card
    return ""


def _lock(card: str, others: int) -> IO[bytes] | None:
    """Take a place at a card, beside so many others; None where somebody has it."""
    folder = Path(tempfile.gettempdir()) / f"{FOLDER}-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    file = open(folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', card)}.{others}", "ab")  # noqa: SIM115  # as long as we live
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
