"""Change many files of a run as one: all new ones are whole before the first old one goes; a kill in between is
finished later."""

import contextlib
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from manifests.checksums import sha256_file
from manifests.files import TEMPORARY, FormatError, parsing, read_json, write_json
from manifests.in_threads import each
from manifests.layered_path import NEW, REMOVING, layer_names
from manifests.publishing import may_publish
from manifests.regular_files import walk
from manifests.remote_path import snapshot
from manifests.scratch import drop_copies
from manifests.store import drop, is_remote, rename, unlink_all

PENDING = REMOVING
"""Where a removal keeps new files until all of them are whole."""
ASKED = ".removal-asked.json"
"""What a removal was asked for, there from its begin to its end: until then the folder takes no other work."""
NOTES = ("removal-copy.json", "removal.json")
"""In PENDING, twice the same: which file belongs where. Once one is there, the removal is finished by whoever opens the
folder next."""

LAST = ("manifests",)
"""Moved after everything else: records follow what they speak of."""


class TransactionError(RuntimeError):
    """A killed removal can neither be finished nor begun anew: what it had made ready is damaged. The message says what
    to do."""


@dataclass(frozen=True)
class Changes:
    """What a copy holds otherwise than the run: paths to put, and paths to drop, relative to both."""

    put: tuple[str, ...]
    drop: tuple[str, ...]


def changes(root: Path, copy: Path, names: Collection[str]) -> Changes:
    """Compare a copy with the run: `names` are the paths that were in the copy when it was made, of which the layer of
    a run in a store needs none."""
    if is_remote(copy):
        return _changes_of_layer(root, copy)
    there = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    put = sorted(name for name in there if _differs(root / name, copy / name))
    return Changes(_in_order(put), tuple(sorted(set(names) - there)))


def _changes_of_layer(root: Path, copy: Path) -> Changes:
    written, gone = layer_names(copy)
    with snapshot():
        differ = each(root, lambda name: _differs(root / name, copy / name), written)
        put = [name for name, is_new in zip(written, differ, strict=True) if is_new]
        return Changes(_in_order(put), tuple(name for name in gone if (root / name).is_file()))


def _in_order(names: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: (name.startswith(LAST), name)))


def _differs(old: Path, new: Path) -> bool:
    if not old.exists():
        return True
    if old.samefile(new):
        return False
    return old.stat().st_size != new.stat().st_size or sha256_file(old) != sha256_file(new)


def commit(root: Path, copy: Path, found: Changes) -> None:
    """Stage the copy's new files below `.removal/new/`, note twice what belongs where and its sha256, then move them
    over. The layer over a run in a store lies there from the beginning."""
    staged = root / PENDING
    is_staged = is_remote(copy)
    if not is_staged:
        drop(staged)
    put: dict[str, str] = {}
    digests = each(root, lambda name: sha256_file(copy / name), found.put)
    for name, sha256 in zip(found.put, digests, strict=True):
        put[name] = sha256
        if not is_staged:
            _stage(copy / name, staged / NEW / name)
    for note in NOTES if found.put or found.drop else ():
        write_json(staged / note, {"put": put, "drop": list(found.drop)}, sealed=True)
    _move(root, put, found.drop)


def _stage(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(source, "rb") as file:
        os.fsync(file.fileno())
    rename(source, place)


def _move(root: Path, put: Collection[str], gone: Collection[str]) -> None:
    """Put every staged file in its place, in order, and forget that a removal was under way."""
    staged = root / PENDING
    for some in ([name for name in put if not name.startswith(LAST)], [name for name in put if name.startswith(LAST)]):
        for _ in each(root, partial(_put, root), some):
            pass
    if is_remote(root):
        may_publish()
    unlink_all(root / name for name in gone)
    drop_copies(root)
    with contextlib.suppress(OSError):  # a folder of its lists alone: it goes with the last of them
        (root / "recheck").rmdir()
    for note in NOTES:
        (staged / note).unlink(missing_ok=True)
    (root / ASKED).unlink(missing_ok=True)
    drop(staged)


def _put(root: Path, name: str) -> None:
    staged = root / PENDING / NEW / name
    if staged.exists():
        if is_remote(root):  # whose lease has run out is not told of it otherwise
            may_publish()
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        rename(staged, root / name)


def is_noted(root: Path) -> bool:
    """Tell whether all new files of a removal are whole, and on their way into the run."""
    return any((root / PENDING / note).exists() for note in NOTES)


def finish(root: Path) -> bool:
    """Finish what a killed removal began, or forget it where it had not yet come to changing anything; return whether
    it was finished.

    Raises TransactionError, and moves nothing, where it had changed something and what it had made ready is damaged.
    """
    staged = root / PENDING
    if is_noted(root):
        put, gone = _noted(root)
        if not (bad := _damaged(root, put)):
            _move(root, put, gone)
            return True
        if any(_is_moved(root, name, sha256) for name, sha256 in put.items()):
            raise TransactionError(
                f"{root}: a removal was interrupted while it put its files in place, and {PENDING}/{NEW}/{bad[0]} is"
                " damaged or missing; nothing was moved now: restore that file, or the run from a copy and remove"
                " again"
            )
        print(
            f"{root}: a removal was interrupted; {PENDING}/{NEW}/{bad[0]} is damaged, and none of its files is in"
            " place: it begins anew",
            file=sys.stderr,
        )
    drop(staged)
    return False


def _noted(root: Path) -> tuple[dict[str, str], list[str]]:
    """Return name -> sha256 of the files to put, and the names of those to drop, from the first whole copy of the
    note."""
    for note in NOTES:
        try:
            return _read_note(root / PENDING / note)
        except (OSError, FormatError):
            continue
    raise TransactionError(
        f"{root}: a removal was interrupted, and {' and '.join(f'{PENDING}/{note}' for note in NOTES)}, which say what"
        " it had changed, are damaged or missing; nothing was moved now: restore one of them, or the run from a copy"
        " and remove again"
    )


def _read_note(path: Path) -> tuple[dict[str, str], list[str]]:
    entry = read_json(path)
    with parsing(path, "not the note of a removal"):
        return dict(entry["put"]), list(entry["drop"])


def _damaged(root: Path, put: dict[str, str]) -> list[str]:
    """Return the files that are neither staged nor in place as they were written."""
    staged = root / PENDING / NEW
    there = {name: staged / name if (staged / name).exists() else root / name for name in put}
    return [name for name, path in there.items() if not path.exists() or sha256_file(path) != put[name]]


def _is_moved(root: Path, name: str, sha256: str) -> bool:
    return (root / name).exists() and sha256_file(root / name) == sha256


def is_left(root: Path) -> bool:
    """Tell whether a killed process left anything that is finished or swept when the folder is locked the next time."""
    if any((root / name).exists() for name in (PENDING, ASKED)):
        return True
    if is_remote(root):
        return any(name.startswith(TEMPORARY) for _, *both in walk(root) for names in both for name in names)
    return next(root.rglob(f"{TEMPORARY}*"), None) is not None
