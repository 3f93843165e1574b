"""Change many files of a run as one: all new ones are whole before the first old one goes; a kill in between is finished later."""

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from manifests.files import read_json, write_json
from manifests.integrity import ASKED, PENDING, PENDING_NOTE
from manifests.weights import sha256_file

LAST = ("manifests",)
"""Moved after everything else: records follow what they speak of."""


@dataclass(frozen=True)
class Changes:
    """What a shadow holds otherwise than the run: paths to put, and paths to drop, relative to both."""

    put: tuple[str, ...]
    drop: tuple[str, ...]


def changes(root: Path, shadow: Path, names: Collection[str]) -> Changes:
    """Compare a shadow with the run: `names` are the paths that were in the shadow when it was made."""
    there = {path.relative_to(shadow).as_posix() for path in shadow.rglob("*") if path.is_file()}
    put = sorted(name for name in there if _differs(root / name, shadow / name))
    return Changes(tuple(sorted(put, key=lambda name: (name.startswith(LAST), name))), tuple(sorted(set(names) - there)))


def _differs(old: Path, new: Path) -> bool:
    if not old.exists():
        return True
    if old.samefile(new):
        return False
    return old.stat().st_size != new.stat().st_size or sha256_file(old) != sha256_file(new)


def commit(root: Path, shadow: Path, found: Changes) -> None:
    """Stage the shadow's new files below `.removal/`, note what belongs where, then move them over."""
    staged = root / PENDING
    shutil.rmtree(staged, ignore_errors=True)
    for name in found.put:
        place = staged / "new" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        _sync(shadow / name)
        os.replace(shadow / name, place)
    if found.put or found.drop:
        write_json(staged / PENDING_NOTE, {"put": list(found.put), "drop": list(found.drop)}, sealed=True)
    finish(root)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def finish(root: Path) -> bool:
    """Finish what a killed removal began, or forget it where it had not yet come to changing anything; return whether it was finished."""
    staged = root / PENDING
    note = staged / PENDING_NOTE
    begun = note.exists()
    if begun:
        entry = read_json(note)
        for name in entry["put"]:
            if (staged / "new" / name).exists():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staged / "new" / name, root / name)
        for name in entry["drop"]:
            (root / name).unlink(missing_ok=True)
        note.unlink()
        (root / ASKED).unlink(missing_ok=True)
    shutil.rmtree(staged, ignore_errors=True)
    return begun
