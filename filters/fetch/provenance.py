"""Read what a picture's C2PA manifest says against training: the assertion `cawg.training-mining`, or C2PA's own of
before 2.0.

With the package c2pa-python, offline: no remote manifest is fetched, nobody is asked whether a certificate still holds,
and no signature is checked, since a refusal counts whoever wrote it. Without the package, and where it finds no
word of training in what it can read, the assertion's bytes are searched: they stand plain in every manifest that is
not compressed, and one bit in a box around them can hide them from a reader.
"""

import functools
import io
import itertools
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from filters.fetch.entries import ENTRIES, REFUSING, refused_entries
from filters.fetch.optout import Receipt

BOX = b"jumb"
"""The type of every box of a manifest (JUMBF, ISO 19566-5): a file without it has none."""
LABEL = re.compile(r"(c2pa|cawg)\.training-mining")
OFFLINE = {
    "verify": {
        "remote_manifest_fetch": False,
        "ocsp_fetch": False,
        "verify_trust": False,
        "verify_after_reading": False,
    }
}
REACH = 2048  # bytes behind its label in which an assertion's entries are looked for
LABELS = re.compile(rb"(?:c2pa|cawg)\.training-mining")
NAMES = re.compile(rb"(?:c2pa|cawg)\.(?:" + "|".join(sorted(ENTRIES, key=len, reverse=True)).encode() + rb")")
USE = re.compile(rb"use[\"':\s\x60-\x7b]{1,6}(notAllowed|constrained|allowed)")
MAX_SEGMENTS = 100_000
MAX_LABELS = 10_000
"""Labels behind which entries are looked for: no manifest has more, and a flood of them would cost seconds."""

Assertion = tuple[str, list[tuple[str, str]]]  # its label, and the entries that it refuses


def c2pa_refusal(data: bytes) -> Receipt | None:
    """Return what a file's C2PA manifests refuse, or None. Raises nothing for odd files.

    What the active manifest says counts; where it says nothing of training, what any of those before it refuses.
    """
    if BOX not in data:
        return None
    said = _said(_store(data) or {}) or _searched(_joined(data))
    for label, refused in said:
        if refused:
            return Receipt.of(f"C2PA {label}", ", ".join(f"{name}: {use}" for name, use in refused))
    return None


def _store(data: bytes) -> dict[str, Any] | None:
    """Return the manifests as c2pa-python has them, or None where it is not there or finds none that it can read."""
    if find_spec("c2pa") is None:
        return None
    import c2pa

    try:
        reader = c2pa.Reader.try_create(None, io.BytesIO(data), None, _offline())
        if reader is None:
            return None
        with reader:
            store = json.loads(reader.json())
    except (c2pa.C2paError, ValueError):
        return None
    return store if isinstance(store, dict) else None


@functools.cache
def _offline() -> Any:
    """Return how the package reads: from the file alone."""
    import c2pa

    return c2pa.Context(c2pa.Settings.from_dict(OFFLINE))


def _said(store: dict[str, Any]) -> list[Assertion]:
    """Return the assertions that count, the active manifest's or else all others."""
    manifests = store.get("manifests") or {}
    active = manifests.get(store.get("active_manifest"), {})
    mine = list(_assertions(active))
    return mine or [one for manifest in manifests.values() for one in _assertions(manifest)]


def _assertions(manifest: dict[str, Any]) -> Iterator[Assertion]:
    for assertion in manifest.get("assertions") or ():
        if found := LABEL.match(str(assertion.get("label"))):
            yield found[0], refused_entries(assertion.get("data"))


def _joined(data: bytes) -> bytes:
    """Return a JPEG's manifest put together from the segments that it is cut into; another file as it is."""
    if not data.startswith(b"\xff\xd8"):
        return data
    pieces, at = list[bytes](), 2
    for _ in range(MAX_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] in (0xD9, 0xDA):
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if data[at + 1] == 0xEB and body.startswith(b"JP"):
            is_first = int.from_bytes(body[4:8], "big") <= 1
            pieces.append(body[8 if is_first else 16 :])  # later ones repeat the length and type of their box
        at += 2 + max(length, 2)
    return b"".join(pieces) or data


def _searched(data: bytes) -> Iterator[Assertion]:
    """Yield the assertions whose bytes stand in a file, as CBOR or JSON has them."""
    for label in itertools.islice(LABELS.finditer(data), MAX_LABELS):
        text = data[label.end() : label.end() + REACH]
        names = [*NAMES.finditer(text)]
        ends = [*(name.start() for name in names[1:]), len(text)]
        refused = []
        for name, end in zip(names, ends, strict=False):
            use = USE.search(text, name.end(), end)
            if use and use[1].decode().lower() in REFUSING:
                refused.append((name[0].decode(), use[1].decode()))
        yield label[0].decode(), sorted(set(refused))
