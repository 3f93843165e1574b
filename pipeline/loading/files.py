"""Read members of shards by offset: the system, or a thread of a store's, fetches whole shards ahead of them."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from manifests.remote_path import RemotePath
from manifests.store import is_remote
from tokenize_shards.samples import LoaderError, Shard

ASKED = 128 * 1024
"""Bytes that the system is asked to fetch at a time: of a longer stretch it takes no more than a device reads ahead."""
AT_ONCE = 4
"""Shards of a store that are fetched at a time."""


class ShardFiles:
    """The shards of the windows that are being read. One thread uses it."""

    def __init__(self, shards: Sequence[Shard], memory_bytes: int = 0) -> None:
        """memory_bytes: shards of a store that together are not larger stay in memory once they were fetched."""
        self.shards = shards
        self._open: dict[int, int] = {}
        self._bytes: dict[int, Future[bytes]] = {}
        self._stored = bool(shards) and is_remote(shards[0].path)
        self._stays = sum(shard.bytes for shard in shards) <= memory_bytes
        self._pool = ThreadPoolExecutor(AT_ONCE) if self._stored else None

    def expect(self, numbers: Iterable[int]) -> None:
        """Begin to fetch these shards whole: into the system's cache of files, or from the store into memory."""
        for number in numbers:
            if self._pool is not None:
                if number not in self._bytes:
                    self._bytes[number] = self._pool.submit(_whole, self.shards[number])
            elif number not in self._open:
                self._open[number] = _opened(self.shards[number].path)

    def keep(self, numbers: Iterable[int]) -> None:
        """Let go of all shards but these."""
        kept = set(numbers)
        for number in [number for number in self._open if number not in kept]:
            os.close(self._open.pop(number))
        for number in [number for number in self._bytes if number not in kept and not self._stays]:
            self._bytes.pop(number).cancel()

    def read(self, number: int, start: int, length: int) -> bytes:
        """Return some bytes of a shard. Raises LoaderError where the shard ends before, OSError."""
        self.expect([number])
        if self._pool is not None:
            data = self._bytes[number].result()[start : start + length]
        else:
            data = os.pread(self._open[number], length, start)
        if len(data) != length:
            path = self.shards[number].path
            raise LoaderError(f"damaged shard: {path} is cut at byte {start + len(data)}: run `make pretokenize` again")
        return data

    def close(self) -> None:
        """Close all files, and end what is being fetched."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _opened(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    if hasattr(os, "posix_fadvise"):
        for start in range(0, os.fstat(descriptor).st_size, ASKED):
            os.posix_fadvise(descriptor, start, ASKED, os.POSIX_FADV_WILLNEED)
    return descriptor


def _whole(shard: Shard) -> bytes:
    assert isinstance(shard.path, RemotePath)
    return shard.path.read_bytes()
