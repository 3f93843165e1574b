"""Work on a run folder without touching it: a tree of links to its whole files, from which finished files are moved
over."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from manifests.aside import ASIDE, UNDER_WAY
from manifests.files import TEMPORARY
from manifests.layout import SCRATCH
from manifests.regular_files import walk
from manifests.transaction import ASKED

RECORDS = "manifests"
"""Folder whose links are never followed: what lies there is this project's alone."""
LEFT_OUT = ("logs", "train", UNDER_WAY, ASIDE, SCRATCH)


@contextlib.contextmanager
def working_copy(root: Path, without: Collection[str]) -> Iterator[Path]:
    """Yield a folder below `root` with a link to each of its files but `without`; it goes when the block ends.

    Steps write by temporary name and rename, so that a link is replaced and what it led to stays as it was. A copy
    that a killed process left is swept when the folder is locked the next time; it never holds what a removal was asked
    for.
    """
    copy = root / f"{TEMPORARY}repair-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        copy.mkdir()
        _link_all(root, copy, without)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _link_all(root: Path, copy: Path, without: Collection[str]) -> None:
    for folder, names, files in walk(root):
        here = folder.relative_to(root)
        names[:] = [
            name for name in names if not name.startswith(TEMPORARY) and not (here == Path() and name in LEFT_OUT)
        ]
        names[:] = [name for name in names if (here / name).as_posix() not in without]
        (copy / here).mkdir(exist_ok=True)
        wanted = [name for name in files if not name.startswith((TEMPORARY, ".lock", ASKED))]
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


def move_over(copy: Path, root: Path, name: str) -> None:
    """Put the copy's file in the place of the root's in one rename, or of the data file that this leads to; the copy
    keeps it too.

    Any other link is replaced itself: those of records, and those that lead nowhere or to what is no plain file.
    """
    target = root / name
    target = target.resolve() if target.is_file() and Path(name).parts[0] != RECORDS else target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}repair-{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
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
    """
    found = []
    for folder, names, files in walk(root):
        if folder == root:
            names[:] = [name for name in names if name != "train"]
        links = [folder / name for name in sorted([*names, *files]) if (folder / name).is_symlink()]
        lost = [path for path in links if not path.is_dir() or path.stat().st_dev != root.stat().st_dev]
        found += [f"{path} is a link to {os.path.realpath(path)}" for path in lost]
    return found
