"""Tell of one URL at a time whether lists or tombstones name it: where a redirect leads is known only on the way."""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from filters.exclude import Exclusions, Listed
from filters.url_forms import Forms, host_forms, url_forms
from manifests.tombstones import Tombstones, value_digest


@dataclass(frozen=True)
class BarredUrls:
    """Forms of the URLs and hosts that lists name, and value_sha256 of those that were removed."""

    urls: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    removed_urls: frozenset[str] = frozenset()
    removed_hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, lists: Iterable[Listed], tombstones: Tombstones) -> "BarredUrls":
        """Take what lists and tombstones of these two kinds name."""
        listed = Exclusions(tuple(one for one in lists if one.kind in ("url", "host"))).by_kind
        named = [frozenset(listed[kind].to_pylist()) if kind in listed else frozenset() for kind in ("url", "host")]
        return cls(*named, *(frozenset(tombstones.values(kind).to_pylist()) for kind in ("url", "host")))

    def names(self, url: str) -> bool:
        """Tell whether a URL is named in whatever spelling, or its host, or a domain above it."""
        urls = pa.array([url], pa.string())
        by_url = bool(self.urls or self.removed_urls) and _named(_each(url_forms(urls)), self.urls, self.removed_urls)
        if by_url or not (self.hosts or self.removed_hosts):
            return by_url
        labels = [host.split(".") for host in _each(host_forms(urls))]
        domains = [".".join(one[place:]) for one in labels for place in range(len(one))]
        return _named(domains, self.hosts, self.removed_hosts)


def _each(forms: Forms) -> list[str]:
    return [value for values in forms.each for value in values.to_pylist() if value is not None]


def _named(values: Iterable[str], listed: frozenset[str], removed: frozenset[str]) -> bool:
    return any(value in listed or (bool(removed) and value_digest(value) in removed) for value in values)
