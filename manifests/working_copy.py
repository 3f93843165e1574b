"""Work on a run folder without touching it: a tree of links to its whole files, or a layer over a run in a store, from
which finished files are moved over."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from manifests.aside import ASIDE, UNDER_WAY
from manifests.files import TEMPORARY
from manifests.layered_path import REMOVING, REPAIRING, make_layer, uncover
from manifests.layout import PARTIAL, SCRATCH
from manifests.publishing import RunOver, may_publish
from manifests.regular_files import walk
from manifests.remote_path import RemotePath
from manifests.store import drop, is_remote, scratch_of
from manifests.store import link as copy_within
from manifests.transaction import ASKED, is_noted

RECORDS = "manifests"
"""Folder whose links are never followed: what lies there is this project's alone."""
CARRIED = (UNDER_WAY, ASIDE, "logs")
"""Folders that a copy to repair in leaves out, and rows may stand in."""
LEFT_OUT = ("train", SCRATCH, PARTIAL)
"""Folders that no copy has."""
HIDDEN = (TEMPORARY, ".lock", ".lease", ASKED)
"""Begins of the names of files that no copy has."""


@contextlib.contextmanager
def working_copy(root: Path, without: Collection[str]) -> Iterator[Path]:
    """Yield a folder below `root` with a link to each of its files but `without`, and but what lies in CARRIED; it goes
    when the block ends.

    Steps write by temporary name and rename, so that a link is replaced and what it led to stays as it was. A copy
    that a killed process left is swept when the folder is locked the next time; it never holds what a removal was asked
    for. Of a run in a store the copy is a layer, which workers share.
    """
    name = f"{REPAIRING}{os.getpid()}-{secrets.token_hex(4)}"
    if isinstance(root, RemotePath):
        with _layer_of(root, name, (*CARRIED, *LEFT_OUT), without) as copy:
            yield copy
        return
    copy = root / name
    try:
        copy.mkdir()
        _link_all(root, copy, without)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


@contextlib.contextmanager
def whole_copy(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield a working copy of everything that rows may stand in, and the paths of its files (of a run in a store none:
    its layer knows what became of it)."""
    if isinstance(root, RemotePath):
        with _layer_of(root, REMOVING, LEFT_OUT, None) as copy:
            yield copy, []
        return
    with working_copy(root, ()) as copy:
        for folder in CARRIED:
            for path in (path for path in sorted((root / folder).rglob("*")) if path.is_file()):
                link(path, copy / path.relative_to(root))
        yield copy, [path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()]


@contextlib.contextmanager
def _layer_of(
    root: RemotePath, holder: str, folders: Collection[str], shared: Collection[str] | None
) -> Iterator[Path]:
    """Yield a working copy of a run in a store; its layer, and what it needed on this machine, go when the block
    ends, but for a layer whose files are on their way into the run."""
    drop(root / holder)
    copy = make_layer(root, holder, folders, HIDDEN, shared)
    try:
        yield copy
    finally:
        shutil.rmtree(scratch_of(copy), ignore_errors=True)
        if holder != REMOVING or (not is_noted(root) and _is_ours()):
            drop(root / holder)


def _is_ours() -> bool:
    """Tell whether this process holds the run still: what lies in it may be another removal's by now."""
    try:
        may_publish()
    except RunOver:
        return False
    return True


def sweep_copies(root: Path) -> None:
    """Drop the working copies that dead processes left in a run in a store; whoever holds the run has none yet."""
    for path in root.iterdir():
        if path.name.startswith(REPAIRING):
            drop(path)


def _link_all(root: Path, copy: Path, without: Collection[str]) -> None:
    left_out = (*CARRIED, *LEFT_OUT)
    for folder, names, files in walk(root):
        here = folder.relative_to(root)
        names[:] = [
            name for name in names if not name.startswith(TEMPORARY) and not (here == Path() and name in left_out)
        ]
        names[:] = [name for name in names if (here / name).as_posix() not in without]
        (copy / here).mkdir(exist_ok=True)
        wanted = [name for name in files if not name.startswith(HIDDEN)]
        for name in (name for name in wanted if (here / name).as_posix() not in without):
            link(root / here / name, copy / here / name)


def link(source: Path, target: Path) -> None:
    """Make `target` lead to the file `source`, in place of what was there: a hard link where the disk has them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source)


def lead_to(root: Path, copy: Path, name: str) -> None:
    """Let the copy have the run's file under this name, whatever it had there."""
    if is_remote(copy):
        uncover(copy / name)
    else:
        link(root / name, copy / name)


def move_over(copy: Path, root: Path, name: str) -> None:
    """Put the copy's file in the place of the root's in one rename, or of the data file that this leads to; the copy
    keeps it too.

    Any other link is replaced itself: those of records, and those that lead nowhere or to what is no plain file.
    """
    target = root / name
    if is_remote(copy):
        may_publish()
        copy_within(copy / name, target)
        return
    target = target.resolve() if target.is_file() and Path(name).parts[0] != RECORDS else target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{REPAIRING}{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    try:
        try:
            os.link(copy / name, temporary)
        except OSError:
            shutil.copyfile(copy / name, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def links_in_the_way(root: Path) -> list[str]:
    """Say of each link of a run that old bytes would stay behind it: links to files, and to folders on another disk.

    What is renamed to a link takes its place, and no rename reaches another disk. train/ may hold links of its own.
    A store has no links.
    """
    found: list[str] = []
    for folder, names, files in () if is_remote(root) else walk(root):
        if folder == root:
            names[:] = [name for name in names if name != "train"]
        links = [folder / name for name in sorted([*names, *files]) if (folder / name).is_symlink()]
        lost = [path for path in links if not path.is_dir() or path.stat().st_dev != root.stat().st_dev]
        found += [f"{path} is a link to {os.path.realpath(path)}" for path in lost]
    return found
