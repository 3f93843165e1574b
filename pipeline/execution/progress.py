"""Show how far a step or a verification is: one live line on a terminal, plain lines elsewhere."""

import sys
import time
from dataclasses import dataclass, field

from manifests.checksums import Watch
from manifests.journal import ShardRecord

EVERY_S = 5.0
"""Seconds between lines where the output is no terminal."""


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

    def add(self, record: ShardRecord) -> None:
        """Count a unit finished in this invocation."""
        self.done, self.rows, self.kept = self.done + 1, self.rows + record.rows_in, self.kept + record.rows_out

    def show(self, last: bool = False) -> None:
        """Print the line if it is time to."""
        live = sys.stderr.isatty()
        now = time.monotonic()
        if not last and now - self.shown < (0.2 if live else EVERY_S):
            return
        self.shown = now
        end = "\n" if last or not live else ""
        print(f"\r\x1b[K{self.line()}" if live else self.line(), end=end, flush=True, file=sys.stderr)

    def line(self) -> str:
        """Return step, units done, rows/s, ETA and rows kept so far."""
        elapsed = time.monotonic() - self.started
        rest = self.units - self.skipped - self.done
        eta = clock(elapsed / self.done * rest) if self.done and rest else ("0:00" if not rest else "?")
        skipped = f" ({self.skipped} were done)" if self.skipped else ""
        rate = self.rows / elapsed if elapsed > 0 else 0.0
        done = f"{self.done + self.skipped}/{self.units} shards{skipped}"
        return f"  {self.step:<8} {done}  {rate:,.0f} rows/s  ETA {eta}  kept {self.kept:,}  {clock(elapsed)}"


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
        eta = clock((self.total - self.done) / rate) if rate else "?"
        line = (
            f"  verify   {self.done / 1e9:,.2f}/{self.total / 1e9:,.2f} GB  {rate / 1e9:.2f} GB/s  ETA {eta} "
            f" {self.files:,} files"
        )
        print(f"\r\x1b[K{line}" if live else line, end="\n" if last or not live else "", flush=True, file=sys.stderr)
