"""Take the records that workers journal into a step's progress, as they come."""

import contextlib
import time

from manifests.journal import ShardRecord
from manifests.store import scan
from pipeline.execution.progress import Progress
from pipeline.execution.step import Step, Unit

LOOKS = 50
"""A look at the journal takes at most one part in so many of the driver's time."""
LONGEST_S = 30.0
"""Seconds after which the journal is looked at again, however long that takes."""


class Gathering:
    """Looks at the journal of a step for units that are pending."""

    def __init__(self, step: Step, progress: Progress) -> None:
        self.step, self.progress = step, progress
        self.look_at = self.last = 0.0
        """When the journal is looked at next, and when a record last came: seconds of a clock, and since the epoch."""

    def collect(self, pending: dict[str, Unit], now: bool = True) -> None:
        """Move newly journalled units from pending to the progress.

        But for `now`, a look waits for LOOKS times as long as the one before took: a journal of 60,000 records is
        listed every two seconds, a small one at every turn.
        """
        began = time.monotonic()
        if now or began >= self.look_at:
            self._look(pending)
            self.look_at = time.monotonic() + min(LOOKS * (time.monotonic() - began), LONGEST_S)

    def _look(self, pending: dict[str, Unit]) -> None:
        fresh: list[str] = []
        with contextlib.suppress(FileNotFoundError), scan(self.step.journal.folder) as found:
            fresh = [entry.name[:-5] for entry in found if entry.name.endswith(".json")]
        for name in set(fresh) & set(pending):
            record = self._record(pending[name])
            if record is not None:
                self.progress.add(record)
                self.last = time.time()
                del pending[name]

    def _record(self, unit: Unit) -> ShardRecord | None:
        record = self.step.journal.get(unit.name)
        return record if record and record.key == unit.key else None
