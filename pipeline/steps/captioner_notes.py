"""Note how many pictures a captioner takes at a time on a device, and what it fell back on: found once, in no key."""

from pathlib import Path
from typing import Any

from manifests.files import FormatError, read_json, write_json
from manifests.store import scratch_of


def note_path(root: Path, captioner: str) -> Path:
    """Return where what was found of a captioner stands: on this machine, whose device it is, be the run in a store."""
    return scratch_of(root) / "logs" / "captioners" / f"{captioner}.json"


def take_noted(root: Path, captioner: Any) -> None:
    """Let a captioner whose recipe names no batch take as many pictures at a time as were found to fit on this device;
    one without slots is left alone."""
    noted = _read(note_path(root, captioner.name))
    if getattr(captioner, "found", False) and noted.get("device") == captioner.device:
        captioner.slots = int(noted["slots"])


def note(root: Path, captioner: Any) -> None:
    """Note a captioner's slots, device and fall-backs, where it has any and they are not noted."""
    if not hasattr(captioner, "slots"):
        return
    now = {"device": captioner.device, "slots": captioner.slots, "notes": list(captioner.notes)}
    path = note_path(root, captioner.name)
    if _read(path) != now:
        write_json(path, now)


def told(root: Path, captioner: str) -> list[str]:
    """Return what the user is told of a captioner, once its shards are done."""
    noted = _read(note_path(root, captioner))
    if not noted:
        return []
    said = f"caption: {captioner}: {noted['slots']} pictures at a time on {noted['device']}"
    return [said, *(f"caption: {line}" for line in noted["notes"])]


def _read(path: Path) -> dict[str, Any]:
    try:
        noted = read_json(path)
    except (OSError, FormatError):
        return {}
    whole = isinstance(noted.get("slots"), int) and noted["slots"] > 0 and isinstance(noted.get("notes"), list)
    return noted if whole else {}
