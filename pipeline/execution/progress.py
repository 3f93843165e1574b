"""Show how far a step or a verification is: one live line on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from manifests.checksums import Watch
from manifests.journal import ShardRecord
from pipeline.execution.in_flight import Part

EVERY_S = 5.0
"""Seconds between lines where the output is no terminal."""

MOST_NAMED = 3
"""Hosts that are named as the slowest."""


@dataclass
class Progress:
    """Counts finished units of one step; rates are of this invocation alone."""

    step: str
    units: int
    skipped: int = 0
    done: int = 0
    rows: int = 0
    kept: int = 0
    started: float = field(default_factory=time.monotonic)
    shown: float = 0.0
    parts: Sequence[Part] = ()
    """How far each worker is in its last unit, where it says."""
    finished: set[str] = field(default_factory=set)
    state: str = ""
    """What an engine is waiting for."""
    noun: str = "rows"
    """What workers that say how far they are count."""

    def add(self, record: ShardRecord) -> None:
        """Count a unit finished in this invocation."""
        self.done, self.rows, self.kept = self.done + 1, self.rows + record.rows_in, self.kept + record.rows_out
        self.finished.add(record.shard)

    def show(self, last: bool = False) -> None:
        """Print the line if it is time to."""
        live = sys.stderr.isatty()
        now = time.monotonic()
        if not last and now - self.shown < (0.2 if live else EVERY_S):
            return
        self.shown = now
        end = "\n" if last or not live else ""
        line = self.line()[: _width()] if live else self.line()
        print(f"\r\x1b[K{line}" if live else line, end=end, flush=True, file=sys.stderr)

    def line(self) -> str:
        """Return step, units done, rows/s, ETA and rows kept so far."""
        elapsed = time.monotonic() - self.started
        rest = self.units - self.skipped - self.done
        begun = sum(part.done / part.total for part in self._begun() if part.total)
        done_units = self.done + begun
        eta = clock(elapsed / done_units * (rest - begun)) if done_units and rest else ("0:00" if not rest else "?")
        skipped = f" ({self.skipped} were done)" if self.skipped else ""
        count, noun = sum(part.before + part.done for part in self.parts), self.noun if self.parts else "rows"
        rate = (count if self.parts else self.rows) / elapsed if elapsed > 0 else 0.0
        done = f"{self.done + self.skipped}/{self.units} shards{skipped}{f'  {count:,} {noun}' if self.parts else ''}"
        speed = f"{rate:,.0f} {noun}/s"
        waits = f"  {self.state}" if self.state else self._slowest()
        return f"  {self.step:<8} {done}  {speed}  ETA {eta}  kept {self.kept:,}  {clock(elapsed)}{waits}"

    def _begun(self) -> list[Part]:
        return [part for part in self.parts if part.unit not in self.finished]

    def _slowest(self) -> str:
        """Return the hosts that the workers wait for longest, over all of them."""
        left: Counter[str] = Counter()
        seconds: dict[str, float] = {}
        for name, urls, since in (host for part in self._begun() for host in part.slowest):
            left[name] += urls
            seconds[name] = max(since, seconds.get(name, 0.0))
        named = sorted(left, key=lambda name: (-seconds[name] * left[name], name))[:MOST_NAMED]
        told = ", ".join(f"{name} ({left[name]:,} URLs left, {clock(seconds[name])})" for name in named)
        return f"  waits for {told}" if told else ""


def _width() -> int | None:
    """Return the letters that fit into one line of the terminal; None where it does not say."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns - 1
    except (OSError, ValueError):
        return None


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss or m:ss."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class ShownWatch(Watch):
    """A Watch that prints bytes, rate and time left: one live line on a terminal, a line every 5 s elsewhere."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__()
        self.quiet = quiet
        self.started = self.shown = time.monotonic()

    def show(self, last: bool = False) -> None:
        """Print the line if it is time to."""
        live, now = sys.stderr.isatty(), time.monotonic()
        if self.quiet or (not last and now - self.shown < (0.2 if live else EVERY_S)):
            return
        self.shown = now
        rate = self.done / max(now - self.started, 1e-6)
        eta = clock(max(self.total - self.done, 0) / rate) if rate else "?"  # a file may have grown meanwhile
        line = (
            f"  verify   {self.done / 1e9:,.2f}/{self.total / 1e9:,.2f} GB  {rate / 1e9:.2f} GB/s  ETA {eta} "
            f" {self.files:,} files"
        )
        print(f"\r\x1b[K{line}" if live else line, end="\n" if last or not live else "", flush=True, file=sys.stderr)
