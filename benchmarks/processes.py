"""What benchmarks ask of the processes that they start."""

from pathlib import Path


def tree(pid: int) -> list[int]:
    """Return a process and all below it; none that has ended."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [pid, *(below for child in children for below in tree(child))]
