"""Hold the recipe's [fetch] table: limits, allowed addresses, and where made-up hosts really are."""

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from filters.fetch.optout import OPT_OUTS
from manifests.extras import require

PACKAGES = ("aiohttp", "brotli", "http_sf", "publicsuffixlist", "simplejpeg")
"""What getting pictures needs beside the package's own dependencies: the extra `fetch`."""
CONTACT = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|https?://[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
"""An e-mail address or a web page."""
PART = r"(\[[^\]]*\]|[^:\[\]]*)"
CURL_FORM = re.compile(f"{PART}:(\\d*):{PART}:(\\d*)")
HOST_PORT = re.compile(f"{PART}(?::(\\d*))?")
WANTED = (
    '{ "host" = "addr:port" }, { "host:port" = "addr:port" } or ["HOST:PORT:ADDR:PORT"]; an empty HOST or PORT stands'
    " for any, an empty ADDR or target PORT for the URL's own; IPv6 in [brackets]"
)


def require_packages() -> None:
    """Raise MissingExtra where a package that getting pictures needs is not installed."""
    require(PACKAGES, "fetch")


def split_host_port(text: str) -> tuple[str, int | None]:
    """Return (host in lower case without brackets, port or None) of `host`, `host:port`, `:port` or `[v6]:port`.

    Raises ValueError where the text is none of them.
    """
    match = HOST_PORT.fullmatch(text.strip())
    port = int(match[2]) if match and match[2] else None
    if match is None or (port is not None and not 1 <= port <= 65535):
        raise ValueError(f"connect_to: got {text!r}, wanted {WANTED}")
    return match[1].strip("[]").lower(), port


def _as_table(value: Any) -> Any:
    """Turn curl's list form into the table form, and check both."""
    if isinstance(value, list | tuple):
        value = dict(_from_curl(item) for item in value)
    if isinstance(value, dict):
        for side in [*value.keys(), *value.values()]:
            split_host_port(str(side))
    return value


def _from_curl(item: Any) -> tuple[str, str]:
    match = CURL_FORM.fullmatch(item.strip()) if isinstance(item, str) else None
    if match is None:
        raise ValueError(f"connect_to: got {item!r}, wanted {WANTED}")
    return f"{match[1]}:{match[2]}", f"{match[3]}:{match[4]}"


class FetchConfig(BaseModel):
    """[fetch]: how pictures are got, and what is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["tessera", "img2dataset"] = Field(
        "tessera", description="who downloads; img2dataset's own downloader lacks most guards (a warning says which)"
    )
    deadline_s: float = Field(
        20, gt=0, description="seconds for one URL: DNS, redirects, header, body, retries; not the wait for its turn"
    )
    max_bytes: int = Field(50_000_000, ge=1, description="cap on the body, as sent and after decompression, in bytes")
    max_redirects: int = Field(5, ge=0, description="redirects followed for one URL")
    max_pixels: int = Field(
        100_000_000, ge=1, description="width x height above which a picture is refused from its header"
    )
    allow_addresses: list[str] = Field(
        [], description="networks (CIDR) that may be dialled although they are not public"
    )
    connect_to: Annotated[dict[str, str], BeforeValidator(_as_table)] = Field(
        {}, description=f"as curl's option: {WANTED}"
    )
    shard_rows: int = Field(10_000, ge=1, le=1_000_000_000, description="rows in a shard of pairs")
    store_side: int | None = Field(
        None, ge=1, description="short side of stored pictures, in pixels; none: 1.1 x the largest tier"
    )
    concurrency: int = Field(64, ge=1, le=4096, description="URLs in flight at once")
    host_connections: int = Field(
        8, ge=1, description="URLs in flight at once at one site (registrable domain), over all workers"
    )
    host_rate: float = Field(
        20,
        ge=0.001,
        le=100_000,
        description="requests a second at one site, over all workers; `Crawl-delay` may ask for fewer",
    )
    max_crawl_delay_s: float = Field(2, ge=0, description="cap on a robots.txt's `Crawl-delay`, in seconds")
    max_wait_s: float = Field(
        60, ge=0, description="seconds in all that a host is left alone because it asks for it or fails"
    )
    breaker_faults: int = Field(10, ge=1, description="faults in a row after which a host is left alone for a while")
    breaker_rest_s: float = Field(5, ge=0, description="seconds of its first rest; each next one takes twice as long")
    robots: bool = Field(True, description="obey robots.txt")
    robots_4xx: Literal["allow", "refuse"] = Field(
        "allow",
        description="what a robots.txt that answers 4xx means: `allow` everything (RFC 9309), or `refuse`, 404 too",
    )
    opt_outs: list[str] = Field(
        list(OPT_OUTS),
        description="refusals that are obeyed: words of `X-Robots-Tag`, `tdmrep`, and what docs/opt-outs.md lists",
    )
    user_agent: str = Field(
        "tessera-t2i/0.1", min_length=1, description="what the fetcher calls itself; outside the demo with a contact"
    )
    jpeg_quality: int = Field(95, ge=1, le=100, description="quality of pictures that must be encoded again")
    keep_metadata: bool = Field(
        False, description="EXIF (places included), XMP, IPTC and comments stay in stored pictures, up to 1 MiB"
    )
    retries: int = Field(0, ge=0, le=10, description="further attempts after a passing fault, within the same deadline")

    @field_validator("allow_addresses")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for text in value:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                raise ValueError(
                    f"got {text!r}, wanted a network such as '127.0.0.0/8' or '::1/128' ({error})"
                ) from error
        return value

    @field_validator("opt_outs")
    @classmethod
    def _known_opt_outs(cls, value: list[str]) -> list[str]:
        if unknown := [text for text in value if text not in OPT_OUTS]:
            raise ValueError(f"got {unknown[0]!r}, wanted some of {', '.join(OPT_OUTS)}")
        return [
            text for text in OPT_OUTS if text in value
        ]  # one order, so that the digest does not depend on the recipe's

    def part(self, parts: int) -> "FetchConfig":
        """Return the settings under which each of so many processes that know nothing of each other keeps its part of a
        site's pace and connections."""
        if parts == 1:
            return self
        rate, connections = self.host_rate / parts, max(1, self.host_connections // parts)
        return self.model_copy(update={"host_rate": rate, "host_connections": connections})

    @property
    def asks_first(self) -> bool:
        """Say whether sites are asked for their rules before their pictures."""
        return self.reads_robots or "tdmrep" in self.opt_outs

    @property
    def reads_robots(self) -> bool:
        """Say whether robots.txt is asked for: for what it forbids, or for what it says of training."""
        return self.robots or not {"content-signal", "aipref"}.isdisjoint(self.opt_outs)

    @field_validator("user_agent")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"got {value!r}, wanted one line of printable ASCII")
        return value


def require_contact(config: FetchConfig) -> None:
    """Check that the user agent says whom a site may write to. Raises ValueError where it does not."""
    if not CONTACT.search(config.user_agent):
        raise ValueError(
            f"fetch.user_agent: got {config.user_agent!r}, wanted a name and a contact that sites can reach: an e-mail"
            " address or a web page, such as 'my-crawler/1.0 (+https://my.site/crawler; me@my.site)'"
        )
