"""Tell which rows tombstones name, by hashes of what the input says of them."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.exclude import hosts_of, is_in_domains, normal_urls
from manifests.tombstones import Tombstones, value_digest


def url_digests(urls: pa.Array) -> pa.Array:
    """Return the sha256 of each normalised URL, in hex; of what is no http(s) URL as it stands. Null stays null."""
    return digests(pc.coalesce(normal_urls(urls), urls))


def digests(values: pa.Array) -> pa.Array:
    """Return the sha256 of each text, in hex; null stays null."""
    return pa.array([None if value is None else value_digest(value) for value in values.to_pylist()], pa.string())


def named_rows(tombstones: Tombstones, columns: Mapping[str, pa.Array]) -> pa.BooleanArray:
    """Tell of each row whether a tombstone names its uid, its URL, its host or a domain above it, or its place. Never
    null."""
    hit = pc.is_in(columns["uid"], value_set=tombstones.uids)
    hit = pc.or_(hit, _at_places(tombstones, columns["source"], columns["source_row"]))
    urls, hosts = tombstones.values("url"), tombstones.values("host")
    if len(urls):
        hit = pc.or_(hit, pc.is_in(url_digests(columns["url"]), value_set=urls))
    if len(hosts):
        hit = pc.or_(hit, in_hosts(columns["url"], hosts))
    return pc.fill_null(hit, False)


def in_hosts(urls: pa.Array, wanted: pa.Array) -> pa.BooleanArray:
    """Tell whether the sha256 of a URL's host, or of a domain above it, is wanted. Never null."""
    return pc.fill_null(
        is_in_domains(hosts_of(urls), lambda domains: pc.is_in(digests(domains), value_set=wanted)), False
    )


def _at_places(tombstones: Tombstones, source: pa.Array, row: pa.Array) -> pa.BooleanArray:
    """Tell which rows stand where removed ones stood."""
    hit = np.zeros(len(row), bool)
    places = tombstones.places
    for name in pc.unique(places["source"]).to_pylist():
        rows = places.filter(pc.equal(places["source"], name))["source_row"].combine_chunks()
        here = pc.and_(pc.equal(source, name), pc.is_in(row, value_set=rows))
        hit |= pc.fill_null(here, False).to_numpy(zero_copy_only=False)
    return pa.array(hit)
