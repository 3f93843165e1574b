"""filter / dedup over more pictures than one process should hold: near duplicates by parts, between groupings.

    ByHash   shards of scores -> parts by pHash         which pictures share a pHash; a sample of them
    ByTable  -> (table, part)                           each distinct pHash once a table
    Pairs    -> parts by pHash                          pairs that connect what is close, thinned within each part
    Components  one unit -> parts by pHash                 each pHash that has a twin with the smallest of its component
    Roots    -> parts by root                           the smallest uid of each of these pHashes
    Named    -> parts by pHash                          the smallest uid of each component
    ByUid    -> ranges of uids                          each picture with its cluster
    ByList   shards of the fetch -> ranges of uids      rows that lists name by more than a pHash
    Marked                                              clusters, marks and matches of each range

Before the cut into tables is known pHashes are counted (near_frequent.py). Units are done by workers; files of slices
lie in the run's scratch folder, and on a cluster the same functions stand around Beam's GroupByKey. The rows behind the
last leg are those of `filters.dedup.clusters`, whatever the parts and the tables.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.hamming import Array
from manifests.files import digest_of, read_json, write_json
from manifests.journal import records_of
from manifests.layout import SCRATCH
from manifests.store import drop
from manifests.tombstones import tombstones_sha256
from pipeline.execution.step import Do, Step, Unit
from pipeline.steps.arrow_files import read_arrow
from pipeline.steps.listed import Embedded
from pipeline.steps.marks import hash_lists, tell_placeholders, write_hash_lists
from pipeline.steps.near_frequent import Counted, Told, find_frequent
from pipeline.steps.near_legs import INTO, STAMP
from pipeline.steps.near_marked import LISTS, Marked

FORMAT = 3
"""Of what lies in the scratch folder: what another version left there is not taken up."""


class Near:
    """The work of one unit of dedup over `rows` pictures, at most. `do` and `grouped`: how units are done. What a
    killed attempt left is taken up."""

    def __init__(self, step: Step, unit: Unit, rows: int, do: Do, grouped: bool) -> None:
        self._step, self._do, self._grouped = step, do, grouped
        self._folder = step.root / SCRATCH / INTO
        _stamp(self._folder, step.root, unit, rows)
        self._marked = Marked(step.recipe, step.root, step.runtime)

    def top(self) -> list[dict[str, Any]]:
        """Do all of it; return the most frequent pHashes with what stands under each."""
        step = self._step
        own = (step.recipe, step.root, step.runtime)
        top, frequent = find_frequent(Counted(*own), Told(*own), self._do, self._grouped)
        self._broadcast(top, frequent)
        self._marked.make(self._do, self._grouped)
        return top

    def _broadcast(self, top: list[dict[str, Any]], frequent: Array) -> None:
        """Write what every worker holds rows against."""
        lists = hash_lists(self._step.recipe, frequent)
        tell_placeholders(top, lists[0])
        write_hash_lists(self._folder / LISTS, lists)
        if Embedded.read(self._folder) is None and (embedded := Embedded.of(self._step.recipe, self._step.root)):
            embedded.write(self._folder)

    def tables(self) -> Iterator[list[pa.Table]]:
        """Yield clusters, marks and matches of all rows, in parts in order of uid."""
        for record in records_of(self._folder, self._marked.name):
            yield [read_arrow(self._folder / file.path) for file in record.files]

    @property
    def sizes(self) -> tuple[int, int]:
        """Return the number of clusters of two and more, and how many pictures the largest has."""
        said = [record.read for record in records_of(self._folder, self._marked.name)]
        return sum(one["clusters"] for one in said), max((one["largest"] for one in said), default=0)


def _stamp(folder: Path, root: Path, unit: Unit, rows: int) -> None:
    """Empty the scratch folder, unless an attempt at the same work left it."""
    stamp = digest_of([FORMAT, unit.key, tombstones_sha256(root)])
    if not (folder / STAMP).is_file() or read_json(folder / STAMP)["stamp"] != stamp:
        drop(folder)
        write_json(folder / STAMP, {"stamp": stamp, "rows": rows})
