"""Mark the pictures that lists of pHashes and evaluation sets name, some pictures at a time, beside what was found of
their rows elsewhere (see listed.py)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.dedup import Array, nearest
from manifests.tables import MARKS, MATCHES
from manifests.tombstones import BY_TOMBSTONE
from pipeline.recipes.lists import Pictures, evaluation_pictures, exclusions, placeholders
from pipeline.recipes.schema import Recipe
from pipeline.steps.arrow_files import read_arrow, write_arrow
from pipeline.steps.labels import binary

TWIN_REMOVED = "its twin was kept and then removed; pipeline remove --promote-duplicates would let it in"
STAND_INS, EVALUATED, REMOVED = "stand-ins", "evaluated", "removed"
FOUND = pa.schema(
    [
        ("uid", pa.binary(16)),
        ("reason", pa.string()),
        ("by", pa.string()),
        ("item", pa.string()),
        ("detail", pa.string()),
    ]
)
"""What was found of a row: a mark has a reason; a match none, but `by` and `item`."""
LISTED = pa.schema([("list", pa.int32()), ("phash", pa.uint64()), ("name", pa.string())])


class Part(NamedTuple):
    """Pictures in order of uid: uids and clusters as (n, 2) halves, pHashes, and which of them a removed picture keeps
    out."""

    uids: Array
    hashes: Array
    clusters: Array
    barred: Array


@dataclass(frozen=True)
class HashList:
    """Listed pHashes, (N,) uint64, with the name of each; `says`: what the list is called; `use`: what it is for."""

    use: str
    says: str
    radius: int
    hashes: Array
    names: pa.Array | pa.ChunkedArray

    def near(self, uids: pa.Array, hashes: Array) -> tuple[pa.Array, pa.Array, pa.Array]:
        """Return uids, names of the listed and distances, as texts, of the pictures that are near a listed one."""
        if not len(self.hashes):
            return uids.slice(0, 0), pa.array([], pa.string()), pa.array([], pa.string())
        places, distances = nearest(hashes, self.hashes, self.radius)
        near = np.flatnonzero(places >= 0)
        names = self.names.take(pa.array(places[near]))
        return uids.take(pa.array(near)), names, pa.array(distances[near]).cast(pa.string())


def hash_lists(recipe: Recipe, frequent: Array) -> list[HashList]:
    """Return all that pictures are held against by pHash; `frequent`: the pHashes that make a placeholder."""
    listed, radius = placeholders(recipe), recipe.dedup.radius
    names = (*listed.names, *(f"pHash {int(value):016x}, one of the most frequent" for value in frequent))
    stand_ins = Pictures(np.concatenate([listed.hashes, frequent]), names)
    found = [_of(STAND_INS, "", radius, stand_ins)]
    found.append(_of(EVALUATED, "", recipe.decontaminate.radius, evaluation_pictures(recipe)))
    for one in exclusions(recipe):
        if one.kind == "phash":
            values = one.values.to_numpy(zero_copy_only=False).astype(np.uint64)
            named = Pictures(values, tuple(f"{int(value):016x}" for value in values))
            found.append(_of(REMOVED, one.name, one.radius, named))
    return found


def _of(use: str, says: str, radius: int, pictures: Pictures) -> HashList:
    return HashList(use, says, radius, pictures.hashes, pa.array(pictures.names, pa.string()))


def write_hash_lists(path: Path, lists: Sequence[HashList]) -> None:
    """Write lists for workers, which read them sooner than the pictures that they were made from."""
    tables = [
        pa.table([pa.array([number] * len(one.hashes), pa.int32()), one.hashes, one.names], schema=LISTED)
        for number, one in enumerate(lists)
    ]
    heads = json.dumps([[one.use, one.says, one.radius] for one in lists])
    write_arrow(path, pa.concat_tables(tables).replace_schema_metadata({"lists": heads}))


def read_hash_lists(path: Path) -> list[HashList]:
    """Return what `write_hash_lists` wrote. Raises FormatError, OSError."""
    table = read_arrow(path)
    numbers = table["list"].to_numpy()
    found = []
    for number, head in enumerate(json.loads((table.schema.metadata or {})[b"lists"])):
        own = table.slice(*_run(numbers, number))
        use, says, radius = head
        found.append(HashList(use, says, radius, own["phash"].to_numpy(), own["name"]))
    return found


def _run(numbers: Array, number: int) -> tuple[int, int]:
    first, end = np.searchsorted(numbers, [number, number + 1]).tolist()
    return first, end - first


def tell_placeholders(top: Sequence[dict[str, Any]], stand_ins: HashList) -> None:
    """Say in each entry of the most frequent pHashes whether its pictures are placeholders."""
    for entry in top:
        value = np.array([int(entry["phash"], 16)], np.uint64)
        entry["placeholder"] = bool(nearest(value, stand_ins.hashes, stand_ins.radius)[0][0] >= 0)


@dataclass(frozen=True)
class Marker:
    """Holds pictures against lists of pHashes; `tombstones`: those that were removed by their own. `drops`: what is in
    an evaluation set is marked too."""

    lists: Sequence[HashList]
    tombstones: pa.Array
    drops: bool

    def marked(self, part: Part, found: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Return the marks and matches of these pictures and of the rows of which something was `found` (FOUND), in
        order."""
        uids, hashes = binary(part.uids), part.hashes
        same = pc.is_in(pa.array(hashes, pa.uint64()), value_set=self.tombstones)
        alike = pa.array([f"{BY_TOMBSTONE} pHash {int(value):016x}" for value in hashes[same]], pa.string())
        marks = [found_marks(uids.filter(pa.array(part.barred)), "near_duplicate", TWIN_REMOVED)]
        marks += [found_marks(uids.filter(same), "removed", alike), found.filter(pc.is_valid(found["reason"]))]
        matches = [found.filter(pc.is_null(found["reason"]))]
        for one in self.lists:
            own, name, bits = one.near(uids, hashes)
            if one.use == EVALUATED:
                matches.append(found_matches(own, "phash", name, text(bits, " bits apart")))
            elif one.use == STAND_INS:
                marks.append(found_marks(own, "placeholder", text(name, ", ", bits, " bits apart")))
            else:
                marks.append(found_marks(own, "removed", text(f"{one.says}: pHash ", name, ", ", bits, " bits apart")))
        return self._sorted(marks, pa.concat_tables(matches))

    def _sorted(self, marks: list[pa.Table], matches: pa.Table) -> tuple[pa.Table, pa.Table]:
        if self.drops:
            detail = text(matches["by"], " ", matches["item"], ": ", matches["detail"])
            marks = [*marks, found_marks(matches["uid"], "in_eval_set", detail)]
        together = pa.concat_tables([one.select(MARKS.names).cast(MARKS) for one in marks])
        if together.num_rows:
            together = together.group_by(MARKS.names, use_threads=False).aggregate([]).cast(MARKS)
        return _in_order(together), _in_order(matches.select(MATCHES.names).cast(MATCHES))


def _in_order(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in table.schema.names]) if table.num_rows else table


def text(*parts: Any) -> pa.Array:
    """Return the texts that these parts, columns and words, make row by row."""
    return pc.binary_join_element_wise(*parts, "")


def found_marks(uids: Any, reason: str, detail: Any) -> pa.Table:
    """Return marks as FOUND."""
    details = pa.array([detail] * len(uids), pa.string()) if isinstance(detail, str) else detail
    nothing = pa.nulls(len(uids), pa.string())
    return pa.table([uids, pa.array([reason] * len(uids), pa.string()), nothing, nothing, details], schema=FOUND)


def found_matches(uids: Any, by: str, item: Any, detail: Any) -> pa.Table:
    """Return matches as FOUND."""
    count = len(uids)
    return pa.table(
        [uids, pa.nulls(count, pa.string()), pa.array([by] * count, pa.string()), item, detail], schema=FOUND
    )
