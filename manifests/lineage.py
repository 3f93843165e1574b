"""Say from which manifest another one came by a removal: the records of removals, in order."""

from pathlib import Path
from typing import Any

from manifests.files import FormatError, read_json

FOLDER = "removals"
"""`manifests/removals/NNNN.json`: what each removal changed, with each stage's digest before and after."""


def removals(root: Path) -> list[dict[str, Any]]:
    """Return the records of removals, oldest first; damaged ones are left out."""
    found = []
    for path in sorted((root / "manifests" / FOLDER).glob("*.json")):
        try:
            found.append(read_json(path))
        except (OSError, FormatError):
            continue
    return found


def former(root: Path, stage: str) -> str:
    """Return the digest that a stage's manifest had before the last removal that changed it, or nothing."""
    changed = [record["stages"][stage]["before"] for record in removals(root) if stage in record["stages"]]
    return str(changed[-1]) if changed else ""


def origin(root: Path, stage: str, digest: str) -> str:
    """Return the digest of the manifest that removals alone have turned into the one with this digest: itself, without any."""
    for record in reversed(removals(root)):
        entry = record["stages"].get(stage)
        if entry and entry["after"] == digest:
            digest = str(entry["before"])
    return digest
