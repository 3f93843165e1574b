"""Let all fetching processes of one machine share the pace and the connections of each site.

A table in a file that each of them maps into memory: an entry a site, with the time of its next request and the number
of connections that each process has open. A process takes an entry's turn under a lock of the whole file, which
the system lets go of when the process dies; what it had on its way is forgotten when its number is cleared.
"""

import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

BUCKETS, WAYS = 4096, 8
"""Entries of the table: a name may stand in eight places. Where all are in use by others it shares one of theirs: it
waits longer than it must, and nobody is asked too often."""
KEY = 16  # bytes of a name's digest
HEAD = struct.Struct("<dd")
"""The time, by the monotonic clock, before which nothing is asked for, and a host's Crawl-delay in seconds."""
FIRST = KEY + HEAD.size  # where the counts of an entry begin: a byte for each process
ASK_AGAIN_S = 0.05
"""Seconds after which a process asks again for a connection that others hold."""
CATCH_UP_S = 0.1
"""Seconds, less the pause between two requests, by which late starts may be made up for: timers that ring late do not
lower a high rate."""
MOST = 255  # connections of one process to one site: what a byte holds


@dataclass(frozen=True)
class Turn:
    """Whether a request may start. `at`: when the site's next one may, or is worth asking for; `host_at`: the same for
    the host."""

    granted: bool
    at: float
    host_at: float = 0.0


def next_turn(next_at: float, now: float, pause_s: float) -> float:
    """Return when the request after one at `now` may start."""
    return max(next_at, now - max(0.0, CATCH_UP_S - pause_s)) + pause_s


@dataclass(frozen=True)
class Share:
    """Where the table is that `lanes` processes share, and this process's number among them."""

    path: Path
    lane: int
    lanes: int

    def open(self) -> "SharedBudget":
        """Open the table. Raises OSError."""
        return SharedBudget(self.path, self.lane, self.lanes)


class SharedBudget:
    """One process's view of the table. `lane`: its number among the processes."""

    def __init__(self, path: Path, lane: int, lanes: int) -> None:
        """Open the table, made where there is none; forget what an earlier process of this number had on its way.
        Raises OSError."""
        self.lane, self.lanes, self.entry = lane, lanes, FIRST + lanes
        size = BUCKETS * WAYS * self.entry
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with self._lock():
            if os.fstat(self.file).st_size < size:
                os.posix_fallocate(self.file, 0, size)  # a page that a full disk lacks later would end this process
        self.table = mmap.mmap(self.file, size)
        self.held: dict[str, tuple[int, int]] = {}
        """Site -> (its entry, connections). An entry that is held is nobody else's."""
        self.clear()

    def close(self) -> None:
        """Let go of what is held, and of the table."""
        self.clear()
        self.table.close()
        os.close(self.file)

    def clear(self) -> None:
        """Forget what this process has on its way."""
        self.held.clear()
        with self._lock():
            lane = memoryview(self.table)[FIRST + self.lane :: self.entry]
            lane[:] = bytes(len(lane))
            lane.release()

    def take(self, site: str, host: str, pause_s: float, connections: int | None, delay_s: float = 0.0) -> Turn:
        """Ask for a request to a host of a site. `connections`: how many all processes together may have open; None: it
        takes the place of one that this process has open and idle. `delay_s`: the host's Crawl-delay."""
        with self._lock():
            now = time.monotonic()
            at, own = self._entry(site, now)
            next_at, rest = self._next_at(at), self._find(f"host {host}")
            host_at = 0.0 if rest is None else self._next_at(rest)
            if host_at > now or next_at > now:
                return Turn(False, next_at, host_at)
            counts = self._counts(at)
            if connections is not None and (sum(counts) >= connections or counts[self.lane] == MOST):
                return Turn(False, now + ASK_AGAIN_S)
            next_at = next_turn(next_at, now, pause_s)
            self._write(at, site if own else None, next_at)
            self._hold_entry(site, at, connections is not None)
            delay_s = max(delay_s, 0.0 if rest is None else self._head(rest)[1])
            if delay_s:
                self._rest(host, next_turn(host_at, now, delay_s), delay_s)
            return Turn(True, next_at)

    def keep(self, site: str, connections: int) -> None:
        """Say how many connections to a site this process has open now, of those that it has taken."""
        if site in self.held and not self.table.closed:
            at, count = self.held[site]
            if connections != count:
                with self._lock():
                    self._hold_entry(site, at, connections - count)

    def spend(self, site: str, pause_s: float) -> float:
        """Count one more request of a site that is asked now; return when its next one may start."""
        with self._lock():
            now = time.monotonic()
            at, own = self._entry(site, now)
            next_at = next_turn(self._next_at(at), now, pause_s)
            self._write(at, site if own else None, next_at)
            return next_at

    def rest(self, host: str, until: float, delay_s: float = 0.0) -> None:
        """Let nobody ask a host before a time, and from then on no faster than its Crawl-delay."""
        with self._lock():
            self._rest(host, until, delay_s)

    def _rest(self, host: str, until: float, delay_s: float) -> None:
        name = f"host {host}"
        at, own = self._entry(name, time.monotonic())
        if own:  # else an entry is shared with a site, which has done nothing to be left alone for
            known, delay = self._head(at) if self._find(name) == at else (0.0, 0.0)
            self._write(at, name, max(until, known), max(delay_s, delay))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        fcntl.flock(self.file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self.file, fcntl.LOCK_UN)

    def _bucket(self, key: bytes) -> range:
        first = int.from_bytes(key[:4], "little") % BUCKETS * WAYS * self.entry
        return range(first, first + WAYS * self.entry, self.entry)

    def _find(self, name: str) -> int | None:
        """Return where a name stands, if it does."""
        key = _key(name)
        return next((at for at in self._bucket(key) if self.table[at : at + KEY] == key), None)

    def _entry(self, name: str, now: float) -> tuple[int, bool]:
        """Return where a name stands, or may stand, and whether it is its own place: one that says nothing any more,
        else one that it shares."""
        if name in self.held:
            at = self.held[name][0]
            return at, self.table[at : at + KEY] == _key(name)
        found = self._find(name)
        if found is not None:
            return found, True
        key = _key(name)
        places = self._bucket(key)
        free = next((at for at in places if self._next_at(at) <= now and not any(self._counts(at))), None)
        return (places[key[4] % WAYS], False) if free is None else (free, True)

    def _counts(self, at: int) -> bytes:
        return self.table[at + FIRST : at + self.entry]

    def _next_at(self, at: int) -> float:
        return self._head(at)[0]

    def _head(self, at: int) -> tuple[float, float]:
        next_at, delay_s = HEAD.unpack_from(self.table, at + KEY)
        return float(next_at), float(delay_s)

    def _write(self, at: int, name: str | None, next_at: float, delay_s: float = 0.0) -> None:
        """Note a time. `name`: whose place it is from now on; None: another's as before."""
        if name is not None:
            self.table[at : at + KEY] = _key(name)
        HEAD.pack_into(self.table, at + KEY, next_at, delay_s)

    def _hold_entry(self, site: str, at: int, more: int) -> None:
        """Count so many more connections of this process."""
        count = self.held.get(site, (at, 0))[1] + more
        self.table[at + FIRST + self.lane] = min(MOST, max(0, self.table[at + FIRST + self.lane] + more))
        if count:
            self.held[site] = (at, count)
        else:
            self.held.pop(site, None)


@lru_cache(maxsize=1 << 14)
def _key(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=KEY).digest()
