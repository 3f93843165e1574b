"""Wait for other processes, with a bound; and find them."""

import time
from pathlib import Path


def wait_for(condition, seconds=60):
    """Return when the condition holds; fail where it does not within this time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def parents():
    """Return process -> its parent, of all processes that are not zombies."""
    numbers = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                numbers[int(folder.name)] = int(parent)
    return numbers


def descendants(pid):
    """Return the processes below this one."""
    known, family = parents(), {pid}
    for _ in range(3):
        family |= {child for child, parent in known.items() if parent in family}
    return family - {pid}
