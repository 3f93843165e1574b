"""Let DuckDB read the tables of a run in an object store, by the requests that everything else is read by."""

from typing import Any

from manifests.layered_path import layered
from manifests.remote_path import RemotePath


def reading_filesystem(protocol: str) -> Any:
    """Return a file system of fsspec for `connection.register_filesystem`: it opens to read, and lists."""
    from fsspec import AbstractFileSystem

    class Reading(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
        """Objects of one protocol, by their whole URLs."""

        cachable = False

        def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
            return place_of(path).open("rb")

        def info(self, path: str, **options: Any) -> dict[str, Any]:
            facts = place_of(path).stat()
            return {"name": path, "size": facts.st_size, "type": "file" if facts.is_file else "directory"}

        def modified(self, path: str) -> Any:
            from datetime import UTC, datetime

            return datetime.fromtimestamp(place_of(path).stat().st_mtime, UTC)

        def glob(self, path: str, **options: Any) -> list[str]:
            return [path] if place_of(path).is_file() else []

        def exists(self, path: str, **options: Any) -> bool:
            return place_of(path).exists()

    def place_of(path: str) -> RemotePath:
        return layered(RemotePath.of(path if "://" in path else f"{protocol}://{path.lstrip('/')}"))

    Reading.protocol = protocol
    return Reading()
