"""filter / dedup over more pictures than one process should hold: near duplicates by parts, between groupings.

    ByHash   shards of scores -> parts by pHash         which pictures share a pHash; a sample of them
    ByTable  -> (table, part)                           each distinct pHash once a table
    Pairs    -> parts by pHash                          pairs that connect what is close, thinned within each part
    Components  one unit -> parts by pHash                 each pHash that has a twin with the smallest of its component
    Roots    -> parts by root                           the smallest uid of each of these pHashes
    Named    -> parts by pHash                          the smallest uid of each component
    ByUid    -> ranges of uids                          each picture with its cluster

Units are done by workers where there are many rows; files of slices lie in the run's scratch folder. The rows behind
the last leg are those of `filters.dedup.clusters`, whatever the parts and the tables.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from filters.hamming import Array
from manifests.files import digest_of, read_json, write_json, writing
from manifests.layout import SCRATCH
from manifests.tombstones import tombstones_sha256
from pipeline.execution.shuffle import Slices
from pipeline.execution.step import Do, Step, Unit
from pipeline.steps.frequent import Frequent, asked_for, counted
from pipeline.steps.near_legs import (
    ASKED,
    INTO,
    STAMP,
    TABLES,
    ByHash,
    ByTable,
    ByUid,
    Components,
    Named,
    NearLeg,
    Pairs,
    Roots,
    Spelled,
    choose_tables,
    columns_of,
)


class Part(NamedTuple):
    """Pictures of a range of uids, in order: uids and clusters as (n, 2) halves, pHashes, and which of them a removed
    picture keeps out."""

    uids: Array
    hashes: Array
    clusters: Array
    barred: Array


LEGS: tuple[type[NearLeg], ...] = (ByHash, ByTable, Pairs, Components, Roots, Named, ByUid)
DROPPED: dict[type[NearLeg], type[NearLeg]] = {Pairs: ByTable, Components: Pairs, Named: Roots}
"""Legs behind which the slices of an earlier one are not read any more."""


class Near:
    """The work of one unit of dedup over `rows` pictures, at most. `do`: how units are done. What a killed attempt left
    is taken up."""

    def __init__(self, step: Step, unit: Unit, rows: int, do: Do) -> None:
        self._step, self._rows, self._do = step, rows, do
        self._folder = step.root / SCRATCH / INTO
        _stamp(self._folder, step.root, unit, rows)
        self._legs = [leg(step.recipe, step.root, step.runtime) for leg in LEGS]

    def frequent(self, least: int) -> tuple[list[dict[str, Any]], Array]:
        """Return the most frequent pHashes with what stands under each, and those that make a placeholder."""
        self._legs[0].make(self._do)
        slices = Slices.of(ByHash, self._step.root)
        parts = range(self._legs[0].parts())
        asked = asked_for((counted(slices.of_part(part)["phash"].to_numpy()) for part in parts), least)
        with writing(self._folder / ASKED) as temporary, temporary.open("wb") as file:
            np.save(file, asked)
        leg = Spelled(self._step.recipe, self._step.root, self._step.runtime)
        leg.make(self._do)
        found, slices = Frequent(least), Slices.of(Spelled, self._step.root)
        for part in range(leg.parts()):
            found.add(slices.of_part(part))
        return found.found()

    def parts(self) -> Iterator[Part]:
        """Yield all decoded pictures in order of uid, in parts."""
        root, legs = self._step.root, self._legs
        if not (self._folder / TABLES).is_file():
            legs[0].make(self._do)
            bands = choose_tables(root, self._rows, legs[0].parts(), self._step.recipe.dedup.radius)
            write_json(self._folder / TABLES, {"tables": list(bands.tables)})
        last = max((number for number, leg in enumerate(legs) if _is_complete(leg)), default=-1)
        for leg in legs[last + 1 :]:
            leg.make(self._do)
            if before := DROPPED.get(type(leg)):
                shutil.rmtree(self._folder / before.name, ignore_errors=True)
        yield from _in_order(root, legs[-1].parts())


def _stamp(folder: Path, root: Path, unit: Unit, rows: int) -> None:
    """Empty the scratch folder, unless an attempt at the same work left it."""
    stamp = digest_of([unit.key, tombstones_sha256(root)])
    if not (folder / STAMP).is_file() or read_json(folder / STAMP)["stamp"] != stamp:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / STAMP, {"stamp": stamp, "rows": rows})


def _is_complete(leg: NearLeg) -> bool:
    return all(leg.journal.done(unit.name, unit.key) is not None for unit in leg.units())


def _in_order(root: Path, parts: int) -> Iterator[Part]:
    slices = Slices.of(ByUid, root)
    for part in range(parts):
        high, low, hashes, first, second, bars = columns_of(slices.of_part(part))
        order = np.lexsort((low, high))
        uids, clusters = (np.stack(pair, axis=1)[order] for pair in ((high, low), (first, second)))
        yield Part(uids, hashes[order], clusters, bars[order] > 0)
