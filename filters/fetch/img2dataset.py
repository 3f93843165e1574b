"""Run img2dataset's own downloader over a few URLs, and say in our words what became of each.

What is checked here is checked before a URL is handed over: its scheme, and the addresses that its host has now. From
then on urllib is on its own; `LACKS` says what that means.
"""

import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa

from filters.fetch.config import FetchConfig
from filters.fetch.digests import NONE, Digests
from filters.fetch.embedded import embedded_refusal
from filters.fetch.guard import ConnectMap, Guard
from filters.fetch.messages import Download, Request
from filters.fetch.optout import Receipt
from filters.fetch.url import UrlFault, normalise
from filters.images.decode import ImageFault, ImageLimits, store
from manifests.reasons import of_status

LACKS = (
    "no cap on a body's bytes, no deadline (its timeout is for each socket operation), no look at the address after a"
    " redirect or a second lookup, nor at lists after a redirect, no robots.txt, no refusal but X-Robots-Tag and what"
    " stands inside files that fit, no limit for each host, no pixel limit before it decodes, one reason `corrupt` for"
    " all that does not decode, first frames of animations, no EXIF turning and no colour profiles; it would open"
    " file:// too: only http(s) URLs are handed to it"
)
"""What this engine is without, for the warning at the start of a run."""
DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")  # its command line's default
HTTP_ERROR = re.compile(r"HTTP Error (\d{3})")
REASONS: tuple[tuple[str, str], ...] = (
    (r"disallowed by X-Robots-Tag", "opted_out"),
    (r"redirect error that would lead to an infinite loop", "too_many_redirects"),
    (r"Redirection to url .* is not allowed|unknown url type", "blocked_scheme"),
    (r"timed out", "timeout"),
    (r"SSL|CERTIFICATE|certificate", "tls"),
    (r"Errno -\d+\]|Name or service not known|nodename nor servname|getaddrinfo", "dns"),
    (r"IncompleteRead", "incomplete_body"),
    (r"Errno \d+\]|Remote end closed|Connection (?:refused|reset|aborted)|unreachable", "connection"),
    (r"no host given|nonnumeric port|URL can't contain|codec can't encode|Invalid URL|Invalid IPv6", "bad_url"),
)
"""What its downloads say (urllib's and http.client's words) and the ledger's reason; what nobody foresaw is
`bad_response`."""
PICTURES: tuple[tuple[str, str], ...] = (
    (r"buf\.empty", "empty_body"),
    (r"image area too large|MAX_IMAGE_(?:PIXELS|WIDTH|HEIGHT)", "too_many_pixels"),
)
"""What its resizer says; what nobody foresaw is `corrupt`: HTML, cut and broken pictures all read `Image decoding
error` there."""


def missing() -> str | None:
    """Say why this engine cannot run here, None where it can."""
    from importlib.util import find_spec

    if sys.version_info >= (3, 13):
        return f"img2dataset 1.47 stops at Python 3.12, this is {sys.version.split()[0]}"
    return None if find_spec("img2dataset") else "the package img2dataset is not installed"


def download(requests: Sequence[Request], config: FetchConfig, limits: ImageLimits) -> Iterator[Download]:
    """Yield one download for each request, those that are refused first, then the others in their order.

    Raises AssertionError where img2dataset's own counts do not add up.
    """
    gate = _Gate(config)
    with ThreadPoolExecutor(min(32, config.concurrency), thread_name_prefix="dns") as pool:
        evaluated = list(zip(requests, pool.map(gate.evaluate, requests), strict=True))
    yield from (verdict for _, verdict in evaluated if isinstance(verdict, Download))
    handed = [(request, url) for request, url in evaluated if isinstance(url, str)]
    if handed:
        yield from _run(handed, config, limits)


class _Gate:
    """What is asked of a URL before it is handed over."""

    def __init__(self, config: FetchConfig) -> None:
        self.guard = Guard.of(config.allow_addresses)
        self.connect_to = ConnectMap.of(config.connect_to)

    def evaluate(self, request: Request) -> str | Download:
        """Return the URL to hand over (with `connect_to` applied to it), or why it is not."""
        try:
            parts = urlsplit(normalise(request.url))
        except UrlFault as fault:
            return Download(request.uid, fault.reason, detail=fault.detail)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        to_host, to_port = self.connect_to.target(host, port)
        try:
            found = {str(info[4][0]) for info in socket.getaddrinfo(to_host, to_port, type=socket.SOCK_STREAM)}
        except (OSError, UnicodeError) as error:
            return Download(request.uid, "dns", detail=str(error))
        refused = [f"{address}: {why}" for address in sorted(found) if (why := self.guard.refusal(address))]
        if refused:
            return Download(request.uid, "blocked_address", detail=refused[0])
        if (to_host, to_port) != (host, port):
            parts = parts._replace(netloc=f"[{to_host}]:{to_port}" if ":" in to_host else f"{to_host}:{to_port}")
        return urlunsplit(parts)


def _run(handed: list[tuple[Request, str]], config: FetchConfig, limits: ImageLimits) -> Iterator[Download]:
    """Let img2dataset download one shard of its own into a folder that goes again, and read what it wrote."""
    import json

    import pyarrow.parquet as pq

    from manifests.shards import read_shard

    with tempfile.TemporaryDirectory(prefix="img2dataset-") as name:
        folder = Path(name)
        table = pa.table({"url": [url for _, url in handed]})
        with pa.OSFile(str(folder / "in.feather"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        _downloader(folder, len(handed), config, limits).download_shard((0, str(folder / "in.feather")))
        rows = {int(row["key"]): row for row in pq.read_table(folder / "0.parquet").to_pylist()}
        counts = json.loads((folder / "0_stats.json").read_text())
        ended = counts["successes"] + counts["failed_to_download"] + counts["failed_to_resize"]
        if counts["count"] != len(handed) or ended > len(handed) or len(rows) > len(handed):
            raise AssertionError(
                f"img2dataset: {len(handed)} URLs in, but {counts['count']} counted, {ended} ended, {len(rows)} rows"
            )
        pictures = ((int(key), sample["jpg"]) for key, sample in read_shard(folder / "0.tar"))
        seen = set()
        for number, jpeg in pictures:
            seen.add(number)
            row = rows[number]
            yield _gated(handed[number][0].uid, jpeg, row, config, limits)
        for number in sorted(set(range(len(handed))) - seen):
            yield _failure(handed[number][0].uid, rows.get(number))


def _downloader(folder: Path, rows: int, config: FetchConfig, limits: ImageLimits) -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks a registry for its own newest version otherwise
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    side = limits.store_side
    resizer = Resizer(
        side or 0,
        "keep_ratio" if side else "no",
        resize_only_if_bigger=True,
        encode_quality=limits.jpeg_quality,
        skip_reencode=True,
        max_image_area=limits.max_pixels,
    )
    return Downloader(
        WebDatasetSampleWriter, resizer, thread_count=config.concurrency, save_caption=False, extract_exif=False,
        output_folder=str(folder),
        column_list=["url"], timeout=config.deadline_s, number_sample_per_shard=max(rows, 2), oom_shard_count=1,
        compute_hash="md5",
        verify_hash_type=None, encode_format="jpg", retries=config.retries, user_agent_token=re.split(r"[/\s]",
        config.user_agent)[0],
        disallowed_header_directives=list(DIRECTIVES),
    )  # fmt: skip


def _gated(uid: bytes, jpeg: bytes, row: dict[str, Any], config: FetchConfig, limits: ImageLimits) -> Download:
    """Return the download of a JPEG that it made, or of a file that it kept as it came: that may refuse itself, and
    what is no part of the picture is taken off."""
    if refused := embedded_refusal(jpeg, config.opt_outs):
        said = f"{refused.rule}: {refused.value}"
        return Download(uid, "opted_out", 200, said, receipt=refused, digests=_digests(row))
    try:
        stored = store(jpeg, replace(limits, store_side=None))
    except ImageFault as fault:
        return Download(uid, fault.reason, 200, fault.detail, digests=_digests(row))
    sizes = {"original_width": row["original_width"], "original_height": row["original_height"]}
    return Download(uid, None, 200, stored=replace(stored, **sizes), digests=_digests(row))


def _digests(row: dict[str, Any]) -> Digests:
    """Return what it says of the bytes that it received: their MD5, since it takes one digest and keeps no bytes."""
    return Digests(md5=row["md5"]) if row.get("md5") else NONE


def _failure(uid: bytes, row: dict[str, Any] | None) -> Download:
    """Return the download of a row without a picture; one that img2dataset lost, which it only prints, counts as
    `corrupt`."""
    if row is None:
        return Download(uid, "corrupt", detail="img2dataset has no row for it")
    said = row["error_message"] or ""
    if row["status"] == "failed_to_resize":
        return Download(uid, reason_of_picture(said), 200, said)
    receipt = Receipt("X-Robots-Tag", f"one of {', '.join(DIRECTIVES)}") if "X-Robots-Tag" in said else None
    return Download(uid, *reason_of_download(said), said, receipt=receipt)


def reason_of_download(said: str) -> tuple[str, int | None]:
    """Return (the ledger's reason, HTTP status if one is named) for what img2dataset says of a download that failed."""
    status = int(found[1]) if (found := HTTP_ERROR.match(said)) else None
    for pattern, reason in REASONS:
        if re.search(pattern, said):
            return reason, status
    return ("bad_response" if status is None else of_status(status)), status


def reason_of_picture(said: str) -> str:
    """Return the ledger's reason for what img2dataset's resizer says."""
    return next((reason for pattern, reason in PICTURES if re.search(pattern, said)), "corrupt")
