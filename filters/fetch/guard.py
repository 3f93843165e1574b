"""Say which addresses may be dialled: public ones, and those that the recipe lists.

The judgement falls on the address that a socket is about to connect to, never on a name, so a name that is
resolved again to something else, a redirect, or an odd spelling of an address gains nothing.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from filters.fetch.config import split_host_port

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# IANA's special-purpose registries (RFC 6890 and successors), written out: what `ipaddress` calls global changes
# between Python releases.
REFUSED_V4: dict[str, str] = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by carriers",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "cloud metadata",
    "169.254.0.0/16": "link-local and cloud metadata",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "6to4 relay",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved and broadcast",
}
PUBLIC_V6 = IPv6Network("2000::/3")  # the only block of global unicast that IANA has opened
REFUSED_V6: dict[str, str] = {
    "2001::/23": "protocol assignments and Teredo",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
}
NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last four bytes are the IPv4 address that is really reached
V4 = [(IPv4Network(text), says) for text, says in REFUSED_V4.items()]
V6 = [(IPv6Network(text), says) for text, says in REFUSED_V6.items()]


class BlockedAddress(OSError):
    """The address may not be dialled; the message names it and why."""


@dataclass(frozen=True)
class Guard:
    """Judges addresses. `allow`: networks that may be dialled although they are not public."""

    allow: tuple[Network, ...] = ()

    @classmethod
    def of(cls, allow_addresses: Sequence[str]) -> "Guard":
        """Make a guard from CIDR texts. Raises ValueError for a text that is no network."""
        return cls(tuple(ipaddress.ip_network(text, strict=False) for text in allow_addresses))

    def refusal(self, host: str) -> str | None:
        """Return why an address (text, as in a sockaddr) may not be dialled, or None where it may."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return "not an address"
        real = _embedded(address)
        if any(_within(each, network) for network in self.allow for each in (address, real)):
            return None
        return _special(real)

    def check(self, host: str) -> None:
        """Raise BlockedAddress where the address may not be dialled."""
        if why := self.refusal(host):
            raise BlockedAddress(f"{host} is not dialled: {why}")


def _within(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 spelling of it reaches, else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def _special(address: Address) -> str | None:
    if isinstance(address, IPv4Address):
        return next((says for network, says in V4 if address in network), None)
    if address not in PUBLIC_V6:
        return "loopback" if address.is_loopback else "outside public IPv6 (2000::/3)"
    return next((says for network, says in V6 if address in network), None)


@dataclass(frozen=True)
class ConnectMap:
    """Where to connect instead of a URL's own host and port, as curl's --connect-to; the URL and its Host header
    stay."""

    targets: Mapping[tuple[str, int | None], tuple[str, int | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Mapping[str, str]) -> "ConnectMap":
        """Read the table form of `fetch.connect_to`. Raises ValueError for a malformed entry."""
        return cls({split_host_port(key): split_host_port(value) for key, value in table.items()})

    def target(self, host: str, port: int) -> tuple[str, int]:
        """Return (host, port) to connect to: the closest entry wins (host and port, host, port, any)."""
        host = host.lower()
        for key in ((host, port), (host, None), ("", port), ("", None)):
            if key in self.targets:
                to_host, to_port = self.targets[key]
                return to_host or host, to_port or port
        return host, port
