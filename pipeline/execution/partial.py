"""Keep what a unit has made before the unit is done, so that a kill costs a batch of work and not a shard.

Tables lie below `.partial/STEP/UNIT-MADE_BY/`, each whole under its name; they go once the unit's own file stands, when
the step ends, and whenever rows are removed from the run. Nothing else reads them, and no digest depends on them: a row
is taken only for what it was made from.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import FormatError, finished, read_parquet, write_table
from manifests.layout import PARTIAL
from manifests.store import drop, is_remote

SHOWN = 16
"""Letters of the digest of how rows were made that name a folder."""


@dataclass(frozen=True)
class Partial:
    """What has been made of one unit of a step, in one way."""

    root: Path
    step: str
    unit: str
    made_by: str
    _last: list[int] = field(default_factory=list, compare=False, repr=False)
    """Number of the last table, once it is known."""

    @property
    def folder(self) -> Path:
        """Return where its tables lie."""
        return self.root / PARTIAL / self.step / f"{self.unit}-{self.made_by[:SHOWN]}"

    def rows(self, uids: Collection[bytes]) -> Iterator[dict[str, Any]]:
        """Yield the rows of these uids that an attempt before this one has left, a later one after an earlier one;
        tables that cannot be read are passed over."""
        wanted = pa.array(list(uids), pa.binary(16))
        for path in self._there():
            try:
                table = read_parquet(path)
                yield from table.filter(pc.is_in(table["uid"], value_set=wanted)).to_pylist()
            except (OSError, FormatError, KeyError, pa.ArrowInvalid):
                continue

    def add(self, table: pa.Table) -> None:
        """Keep some rows. Raises OSError, RunOver."""
        if not self._last:
            self._last.append(max((int(path.stem) for path in self._there() if path.stem.isdecimal()), default=-1))
        self._last[0] += 1
        write_table(self.folder / f"{self._last[0]:08d}.parquet", table)

    def drop(self) -> None:
        """Let go of all rows."""
        drop(self.folder)

    def _there(self) -> list[Path]:
        return sorted(finished(self.folder, "*.parquet")) if self.folder.is_dir() else []


def sweep_partial(root: Path, step: str | None = None) -> None:
    """Let go of what units of a step, none: of all, have left, and of the folder where no other step's lie there."""
    place = root / PARTIAL
    drop(place / step if step else place)
    if not is_remote(place) and place.is_dir() and not any(place.iterdir()):
        drop(place)
