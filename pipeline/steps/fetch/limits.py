"""Judge what was fetched under other limits of [fetch] by what is known of it: a picture that came whole is the same
under any limit that it keeps, and a row that a limit dropped is asked for again once the limit is wider.

A group of what was set aside is known by the digest of all settings. `manifests/plan/fetch-settings.json` says which
settings stand behind a digest, so that those of before can be held against those of now.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filters.images.decode import Stored
from manifests.files import FormatError, read_field, write_json
from manifests.journal import Journal
from manifests.layout import FETCH_SETTINGS
from manifests.reasons import IMAGE
from pipeline.execution.stand_ins import StandIn
from pipeline.steps.fetch.pairs import Attempt

LIMITS = ("shard_rows", "deadline_s", "max_redirects", "max_bytes", "max_pixels")
"""Keys that say how much is asked for at most, not what is made of what comes."""
IN_BODY = ("timeout", "bad_response", "incomplete_body", "opted_out")
"""Reasons, beside those of pictures, that may be told only once a part of the body has come: a smaller `max_bytes` may
come before them."""


@dataclass(frozen=True)
class Terms:
    """What of rows that were fetched under other limits holds now. `again`: reasons for which they are asked for again.
    `max_bytes`, `max_pixels`: limits that are narrower now; pictures are held against them. `is_now`: nothing
    changed."""

    again: frozenset[str] = frozenset()
    max_bytes: int | None = None
    max_pixels: int | None = None

    def holds(self, last: Attempt, stored: Stored, jpeg: bytes, sha256: str) -> Attempt | None:
        """Return the attempt of a stored picture as it is under the limits of now: as it was, or dropped as
        `too_many_pixels`; None where nothing says how many bytes came, or too many did.

        `sha256`: of the stored bytes. How many came is known of a picture that was stored as it came.
        """
        if self.max_bytes is not None and (last.digests.source_sha256 != sha256 or len(jpeg) > self.max_bytes):
            return None
        if self.max_pixels is not None and stored.original_width * stored.original_height > self.max_pixels:
            return replace(last, reason="too_many_pixels", digests=replace(last.digests, pdq=None))
        return last


SAME = Terms()


def terms(before: Mapping[str, Any], now: Mapping[str, Any]) -> Terms | None:
    """Return what holds of rows that were fetched under other settings; None where they are asked for again.

    Not known afterwards: how many redirects were followed, so a smaller `max_redirects` asks again. How long a site
    takes is its mood of that day: what came in time then is not asked for again under a shorter deadline. Of another
    engine only `shard_rows` is compared, since its limits are its own.
    """
    changed = {key for key in {*before, *now} if before.get(key) != now.get(key)}
    judged = LIMITS if now.get("engine") == "tessera" else LIMITS[:1]
    if not changed <= set(judged):
        return None
    wider = {key for key in changed if before[key] < now[key]}
    narrower = changed - wider
    if "max_redirects" in narrower:
        return None
    again: set[str] = set()
    if "deadline_s" in wider:
        again |= {"timeout", "host_down"}
    if "max_redirects" in wider:
        again |= {"too_many_redirects"}
    if "max_bytes" in wider:
        again |= {"too_large"}
    if "max_pixels" in wider:
        again |= {"too_many_pixels"}
    if "max_bytes" in narrower:
        again |= {*IMAGE, *IN_BODY}
    if "max_pixels" in narrower:
        again |= {*IMAGE} - ({"too_many_pixels"} - again)
    most = {key: now[key] if key in narrower else None for key in ("max_bytes", "max_pixels")}
    return Terms(frozenset(again), **most)


def known_settings(root: Path) -> dict[str, dict[str, Any]]:
    """Return digest of settings -> the settings of [fetch] under which shards of the run were made, as far as it is
    noted."""
    try:
        found = read_field(_path(root), "settings", dict)
    except (OSError, FormatError):
        found = {}
    note = Journal(root, "fetch").note()
    more = {note["own_key"]: note["settings"]} if note else {}
    return {key: value for key, value in {**found, **more}.items() if isinstance(value, dict)}


def note_settings(root: Path, own_key: str, settings: Mapping[str, Any]) -> None:
    """Note what stands behind the digest of the settings of now, and of those of before, before any shard is made."""
    known = known_settings(root)
    noted = {**known, own_key: dict(settings)}
    if noted != known or not _path(root).exists():
        write_json(_path(root), {"settings": dict(sorted(noted.items()))}, sealed=True)


def made_alike(root: Path, own_key: str, settings: Mapping[str, Any]) -> dict[str, Terms]:
    """Return digest of settings -> what holds of the rows that were made under them, those of now first."""
    judged = {key: terms(before, settings) for key, before in known_settings(root).items() if key != own_key}
    whole = sorted((found != SAME, key, found) for key, found in judged.items() if found is not None)
    return {own_key: SAME, **{key: found for _, key, found in whole}}


def standing_for(root: Path, made_by: str, more: Mapping[str, Mapping[str, Any]]) -> dict[str, StandIn]:
    """Return digest of settings -> which rows that were made under them stand for the same answers made under those of
    `made_by`: what would be taken over from them if the settings of `made_by` came back. `more`: settings that may not
    be noted yet."""
    known = {**known_settings(root), **more}
    if made_by not in known:
        return {}
    judged = {key: terms(other, known[made_by]) for key, other in sorted(known.items()) if key != made_by}
    return {key: StandIn(found.again, found.max_bytes is not None) for key, found in judged.items() if found}


def _path(root: Path) -> Path:
    return root / FETCH_SETTINGS
