"""Tell which pictures lists of digests name: MD5, SHA-1 and SHA-256 of the bytes received, exactly, and PDQ within a
radius."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.dedup import FEW, WIDTH, Array
from filters.exclude import Listed
from filters.hamming import candidates, pair_masks
from manifests.schema import DIGESTS
from manifests.tombstones import Tombstones, value_digest

RULE = "list of hashes "
"""How the ledger of fetch names what a list names: with the list's name, without for a tombstone."""
WORDS = 4
"""64-bit words of a PDQ hash."""


@dataclass(frozen=True)
class Hit:
    """What names a picture: the kind of digest, the picture's own digest in hex, the list's name (None: a tombstone),
    and how many bits of a PDQ hash differ."""

    kind: str
    value: str
    list: str | None
    bits: int = 0

    @property
    def receipt(self) -> tuple[str, str]:
        """Return (rule, value) of the ledger of fetch; the value is the kind and the hash of the digest, as a tombstone
        has it."""
        return (
            f"{RULE}{self.list}" if self.list is not None else RULE.strip(),
            f"{self.kind} {value_digest(self.value)}",
        )

    @property
    def says(self) -> str:
        """Return the hit in words, without the digest."""
        return f"{self.list or 'a tombstone'}: {self.kind}{f', {self.bits} bits apart' if self.kind == 'pdq' else ''}"


@dataclass(frozen=True)
class DigestLists:
    """The lists of digests of a recipe, and the tombstones of digests of a run."""

    lists: tuple[Listed, ...] = ()
    barred: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Kind -> value_sha256 of tombstones: of digests that were removed before."""

    @classmethod
    def of(cls, lists: Sequence[Listed], tombstones: Tombstones) -> "DigestLists":
        """Take the lists that are of digests, and the tombstones that are."""
        barred = {kind: frozenset(tombstones.values(kind).to_pylist()) for kind in DIGESTS}
        return cls(tuple(one for one in lists if one.kind in DIGESTS), {kind: of for kind, of in barred.items() if of})

    def __bool__(self) -> bool:
        return bool(self.lists or self.barred)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of digest that are looked at, those of bytes first."""
        return tuple(kind for kind in DIGESTS if kind in self.barred or any(one.kind == kind for one in self.lists))

    def hit(self, kind: str, digest: str | None) -> Hit | None:
        """Return what names a picture by its digest in hex, or None. Of several lists the first counts."""
        if digest is None:
            return None
        for one in (one for one in self._tables if one.listed.kind == kind):
            if (bits := one.distance(bytes.fromhex(digest))) is not None:
                return Hit(kind, digest, one.listed.name, bits)
        return Hit(kind, digest, None) if value_digest(digest) in self.barred.get(kind, ()) else None

    @cached_property
    def _tables(self) -> tuple["_Table", ...]:
        return tuple(_Table(one) for one in self.lists)

    def hits(self, table: pa.Table) -> Iterator[tuple[int, Hit]]:
        """Yield (row, what names it) of a table whose columns of `kinds` hold hex digits or nulls; a column that lacks
        names nobody. A row may come several times."""
        for one in (one for one in self.lists if one.kind in table.schema.names):
            column = table[one.kind].combine_chunks()
            for row, bits in _near(column, one) if one.kind == "pdq" else _equal(column, one):
                yield row, Hit(one.kind, column[row].as_py(), one.name, bits)
        for kind in (kind for kind in self.barred if kind in table.schema.names):
            for row, digest in enumerate(table[kind].to_pylist()):
                if digest is not None and value_digest(digest) in self.barred[kind]:
                    yield row, Hit(kind, digest, None)


class _Table:
    """The values of a list: 16 to 32 bytes each in memory, however long the list; without a radius in order of their
    first 8 bytes."""

    def __init__(self, listed: Listed) -> None:
        self.listed = listed
        rows = _rows(listed.values)
        if listed.radius:
            self.words = np.ascontiguousarray(rows.view(np.uint64).T)
            return
        heads = _heads(rows)
        order = np.argsort(heads, kind="stable")
        self.rows, self.heads = rows[order], heads[order]

    def distance(self, value: bytes) -> int | None:
        """Return how many bits the nearest listed value differs in, None where none is near enough.

        Where a radius is asked for every value is looked at: 10 ms for a million.
        """
        if self.listed.radius:
            return self._least(np.frombuffer(value, np.uint64))
        row = np.frombuffer(value, np.uint8)[None]
        low, high = (np.searchsorted(self.heads, _heads(row)[0], side) for side in ("left", "right"))
        return 0 if (self.rows[low:high] == row).all(axis=1).any() else None

    def _least(self, value: Array) -> int | None:
        if not self.words.shape[1]:
            return None
        bits = np.zeros(self.words.shape[1], np.uint16)
        for word, mine in zip(self.words, value, strict=True):
            bits += np.bitwise_count(word ^ mine)
        least = int(bits.min())
        return least if least <= self.listed.radius else None


def _rows(values: pa.Array) -> Array:
    """Return the bytes of values of a fixed width without nulls, (N, width) uint8."""
    width, data = values.type.byte_width, values.buffers()[1]
    held = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return held[values.offset * width : (values.offset + len(values)) * width].reshape(len(values), width)


def _heads(rows: Array) -> Array:
    return np.ascontiguousarray(rows[:, :8]).view(">u8")[:, 0].astype(np.uint64)


def _equal(column: pa.Array, listed: Listed) -> Iterator[tuple[int, int]]:
    """Yield (row, 0) of the hex digits that are listed."""
    values = pa.array([value.hex() for value in listed.values.to_pylist()], pa.string())
    for row in np.flatnonzero(pc.is_in(column, value_set=values).to_numpy(zero_copy_only=False)).tolist():
        yield row, 0


def _near(column: pa.Array, listed: Listed) -> Iterator[tuple[int, int]]:
    """Yield (row, distance) of the PDQ hashes that are within the radius of a listed one; none is missed.

    Of hashes that differ in r bits one of the four words differs in at most r / 4: filters/hamming.py finds these.
    """
    places = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
    if not len(places) or not len(listed.values):
        return
    found = pa.array([bytes.fromhex(value) for value in column.drop_null().to_pylist()], pa.binary(8 * WORDS))
    hashes, values = _words(found), np.unique(_words(listed.values), axis=0)
    least = np.full(len(hashes), 8 * 8 * WORDS, np.int64)
    for start in range(0, len(hashes), WIDTH // WORDS):
        part = slice(start, start + WIDTH // WORDS)
        for word in range(WORDS):
            for mask in pair_masks(listed.radius // WORDS) if len(values) > FEW else (0,):
                at, of = candidates(hashes[part, word], values[:, word], mask)
                bits = np.bitwise_count(hashes[part][at] ^ values[of]).sum(axis=1, dtype=np.int64)
                np.minimum.at(least, at + start, bits)
    for place in np.flatnonzero(least <= listed.radius).tolist():
        yield int(places[place]), int(least[place])


def _words(values: pa.Array) -> Array:
    """Return PDQ hashes as words, (N, 4) uint64."""
    return _rows(values).view(np.uint64).reshape(len(values), WORDS)
