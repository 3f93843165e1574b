"""Put a run folder into an object store in this process's memory."""

import secrets
from pathlib import Path

from manifests.store import path_of


def memory_root() -> Path:
    """Return a new run's root."""
    return path_of(f"memory://{secrets.token_hex(4)}/run")


def upload(folder: Path, root: Path) -> Path:
    """Copy a folder of a disk to `root`, and return that; what runs keep for this machine alone stays."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock" and path.relative_to(folder).parts[0] != "logs":
            (root / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())
    return root
