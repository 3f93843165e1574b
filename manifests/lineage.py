"""Say from which manifest another one came by a removal: the records of removals, in order."""

from operator import itemgetter
from pathlib import Path
from typing import Any

from manifests.checksums import sha256_file
from manifests.files import FormatError, digest_of, finished, parsing, read_json
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.tombstones import STEP

FOLDER = "removals"
"""`manifests/removals/NNNN.json`: what each removal changed, with each stage's digest before and after."""


def removals(root: Path) -> list[dict[str, Any]]:
    """Return the records of removals, oldest first; damaged ones are left out."""
    found = []
    for path in finished(root / "manifests" / FOLDER, "*.json"):
        try:
            found.append(read_removal(path))
        except (OSError, FormatError):
            continue
    return found


def read_removal(path: Path) -> dict[str, Any]:
    """Return the record of a removal. Raises FormatError for another file, or one without each stage's digest before
    and after, OSError."""
    record = read_json(path)
    with parsing(path, "not a removal's record"):
        for change in record["stages"].values():
            itemgetter("before", "after")(change)
    return record


def lost(root: Path) -> list[str]:
    """Return the records of removals that are missing or damaged, as paths in the run folder: without them lineage
    breaks off."""
    folder = root / "manifests" / FOLDER
    noted = {path.stem for path in finished(root / "manifests" / "journal" / STEP, "*.json") if path.stem.isdigit()}
    there = {path.stem for path in finished(folder, "*.json")}
    whole = [number for number in noted | there if _is_whole(root, number, folder / f"{number}.json")]
    count = max((int(number) for number in noted | there if number.isdigit()), default=0)
    wanted = {*noted, *there, *(f"{number:04d}" for number in range(1, count + 1))}
    return [f"manifests/{FOLDER}/{number}.json" for number in sorted(wanted - set(whole))]


def _is_whole(root: Path, number: str, path: Path) -> bool:
    try:
        read_removal(path)
        record = Journal(root, STEP).get(number)
        return record is None or [file.sha256 for file in record.files] == [sha256_file(path)]
    except (OSError, FormatError):
        return False


def is_journalled(path: Path) -> bool:
    """Tell whether a removal's record is of the kind that the journal names: older ones it does not."""
    try:
        return "tombstones_sha256" in read_json(path)
    except (OSError, FormatError):
        return False


def note_removal(root: Path, path: Path) -> None:
    """Journal the sha256 of a removal's record, so that it is missed when it goes."""
    file = FileRecord.of(root, path)
    Journal(root, STEP).record(ShardRecord(path.stem, digest_of([STEP, file.sha256]), (file,), 0, 0))


def former(root: Path, stage: str) -> str:
    """Return the digest that a stage's manifest had before the last removal that changed it, or nothing."""
    changed = [record["stages"][stage]["before"] for record in removals(root) if stage in record["stages"]]
    return str(changed[-1]) if changed else ""


def origin(root: Path, stage: str, digest: str) -> str:
    """Return the digest of the manifest that removals alone have turned into the one with this digest: itself, without
    any."""
    for record in reversed(removals(root)):
        entry = record["stages"].get(stage)
        if entry and entry["after"] == digest:
            digest = str(entry["before"])
    return digest
