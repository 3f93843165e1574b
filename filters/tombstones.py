"""Tell which rows tombstones name, by hashes of what the input says of them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.exclude import is_in_domains
from filters.url_forms import host_forms, place_forms
from manifests.tombstones import Tombstones, value_digest


def url_digests(urls: pa.Array) -> pa.Array:
    """Return the sha256 of each URL's form, in hex; of what is no URL of the web its own. Null stays null."""
    return digests(place_forms(urls).now)


def in_urls(urls: pa.Array, wanted: pa.Array) -> pa.BooleanArray:
    """Tell whether the sha256 of a URL's form, or of the one that tombstones of before hold, is wanted. Never null."""
    return place_forms(urls).either(partial(_have_digests, wanted=wanted))


def digests(values: pa.Array) -> pa.Array:
    """Return the sha256 of each text, in hex; null stays null."""
    return pa.array([None if value is None else value_digest(value) for value in values.to_pylist()], pa.string())


def named_rows(tombstones: Tombstones, columns: Mapping[str, pa.Array]) -> pa.BooleanArray:
    """Tell of each row whether a tombstone names its uid, its URL, its host or a domain above it, or its place. Never
    null."""
    hit = in_uids(tombstones, columns["uid"])
    hit = pc.or_(hit, _at_places(tombstones, columns["source"], columns["source_row"]))
    urls, hosts = tombstones.values("url"), tombstones.values("host")
    if len(urls):
        hit = pc.or_(hit, in_urls(columns["url"], urls))
    if len(hosts):
        hit = pc.or_(hit, in_hosts(columns["url"], hosts))
    return pc.fill_null(hit, False)


def lists_of(tombstones: Tombstones, columns: Mapping[str, pa.Array], gone: pa.BooleanArray) -> Counter[str]:
    """Return list of hashes -> those of the `gone` rows whose uid or URL it has named and whose place no tombstone
    has: of these `Tombstones.by_list` knows nothing."""
    listed = tombstones.listed.to_pylist()
    if not listed:
        return Counter()
    of_uid = {row["uid"]: row["list"] for row in listed if row["uid"]}
    of_url = {row["value_sha256"]: row["list"] for row in listed if row["kind"] == "url"}
    rows = pc.and_(gone, pc.invert(_at_places(tombstones, columns["source"], columns["source_row"])))
    uids, urls = (columns[name].filter(rows) for name in ("uid", "url"))
    named = (
        of_uid.get(uid) or of_url.get(url)
        for uid, url in zip(uids.to_pylist(), url_digests(urls).to_pylist(), strict=True)
    )
    return Counter(name for name in named if name)


def in_uids(tombstones: Tombstones, uids: pa.Array) -> pa.BooleanArray:
    """Tell whether a uid, binary(16), was removed, whether or not the run had a row of it then. Never null."""
    hit = pc.is_in(uids, value_set=tombstones.uids)
    if len(tombstones.uid_digests):
        hexes = pa.array([None if uid is None else uid.hex() for uid in uids.to_pylist()], pa.string())
        hit = pc.or_(hit, _have_digests(hexes, tombstones.uid_digests))
    return pc.fill_null(hit, False)


def in_hosts(urls: pa.Array, wanted: pa.Array) -> pa.BooleanArray:
    """Tell whether the sha256 of a URL's host, or of a domain above it, is wanted. Never null."""
    among = partial(_have_digests, wanted=wanted)
    return host_forms(urls).either(lambda hosts: is_in_domains(hosts, among))


def _have_digests(values: pa.Array, wanted: pa.Array) -> pa.BooleanArray:
    return pc.is_in(digests(values), value_set=wanted)


def _at_places(tombstones: Tombstones, source: pa.Array, row: pa.Array) -> pa.BooleanArray:
    """Tell which rows stand where removed ones stood."""
    hit = np.zeros(len(row), bool)
    places = tombstones.places
    for name in pc.unique(places["source"]).to_pylist():
        rows = places.filter(pc.equal(places["source"], name))["source_row"].combine_chunks()
        here = pc.and_(pc.equal(source, name), pc.is_in(row, value_set=rows))
        hit |= pc.fill_null(here, False).to_numpy(zero_copy_only=False)
    return pa.array(hit)


@dataclass(frozen=True)
class Wanted:
    """What must not be found."""

    tombstones: Tombstones

    @cached_property
    def hexes(self) -> frozenset[str]:
        """Return the removed uids in hex."""
        return frozenset(uid.hex() for uid in self.tombstones.uids.to_pylist())

    @cached_property
    def _digests(self) -> tuple[pa.Array, pa.Array]:
        return self.tombstones.values("url"), self.tombstones.values("host")

    @property
    def has_urls(self) -> bool:
        """Tell whether any URL or host was removed."""
        return any(len(values) for values in self._digests)

    def urls(self, column: pa.Array | pa.ChunkedArray) -> int:
        """Count the URLs whose own sha256, or their host's, has a tombstone."""
        values = column.unique().drop_null()
        urls, hosts = self._digests
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        hit = in_urls(values, urls)
        return int(pc.sum(pc.or_(hit, in_hosts(values, hosts)) if len(hosts) else hit).as_py() or 0)

    def hosts(self, names: Iterable[str]) -> int:
        """Count the removed hosts, and hosts below them, among words that look like hosts."""
        wanted = self._digests[1]
        values = pa.array(sorted({f"http://{name}/" for name in names}), pa.string())
        return int(pc.sum(in_hosts(values, wanted)).as_py() or 0) if len(wanted) else 0

    def names(self, text: str) -> bool:
        """Tell whether a text is a removed uid in hex."""
        return text in self.hexes or (bool(self._uid_digests) and value_digest(text) in self._uid_digests)

    @cached_property
    def _uid_digests(self) -> frozenset[str]:
        return frozenset(self.tombstones.uid_digests.to_pylist())

    def uids(self, column: pa.Array | pa.ChunkedArray) -> int:
        """Count the values, 16 bytes or 32 hex digits, that are removed uids."""
        if self._uid_digests:
            values = column.drop_null().to_pylist()
            return sum(self.names(value if isinstance(value, str) else value.hex()) for value in values)
        if pa.types.is_string(column.type):
            return int(pc.sum(pc.is_in(column, value_set=pa.array(sorted(self.hexes), pa.string()))).as_py() or 0)
        return int(pc.sum(pc.is_in(column, value_set=self.tombstones.uids.cast(column.type))).as_py() or 0)
