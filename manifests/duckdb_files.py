"""Let DuckDB read the tables of a run in an object store, by the requests that everything else is read by."""

import time
from typing import Any

from manifests.layered_path import layered
from manifests.remote_path import Changes, RemotePath
from manifests.store_requests import Facts

KNOWN_S = 5.0
"""What an object is, is not asked again within this time: DuckDB asks a dozen times for each file of a query."""


def reading_filesystem(protocol: str) -> Any:
    """Return a file system of fsspec for `connection.register_filesystem`: it opens to read, and lists."""
    from fsspec import AbstractFileSystem

    known = Known(protocol)

    class Reading(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
        """Objects of one protocol, by their whole URLs."""

        cachable = False

        def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
            return known.place_of(path).open("rb", facts=known.facts(path))

        def info(self, path: str, **options: Any) -> dict[str, Any]:
            facts = known.facts(path)
            return {"name": path, "size": facts.st_size, "type": "file" if facts.is_file else "directory"}

        def modified(self, path: str) -> Any:
            from datetime import UTC, datetime

            return datetime.fromtimestamp(known.facts(path).st_mtime, UTC)

        def glob(self, path: str, **options: Any) -> list[str]:
            return [path] if self.exists(path) else []

        def exists(self, path: str, **options: Any) -> bool:
            try:
                return known.facts(path).is_file
            except (FileNotFoundError, NotADirectoryError):
                return False

    Reading.protocol = protocol
    return Reading()


class Known:
    """What a connection remembers of objects, until this process changes one."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.changes = -1
        self.found = dict[str, tuple[float, Facts]]()

    def place_of(self, path: str) -> RemotePath:
        """Return the place that DuckDB means."""
        return layered(RemotePath.of(path if "://" in path else f"{self.protocol}://{path.lstrip('/')}"))

    def facts(self, path: str) -> Facts:
        """Return size, time and kind of an object. Raises FileNotFoundError."""
        found = self.found if self.changes == Changes.count else {}
        self.found, self.changes = found, Changes.count
        at, facts = found.get(path, (0.0, None))
        now = time.monotonic()
        if facts is None or now - at > KNOWN_S:
            facts = self.place_of(path).stat()
            found[path] = now, facts
        return facts
