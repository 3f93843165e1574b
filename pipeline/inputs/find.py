"""Find the files that input.files means: files, folders to any depth, globs. Hidden ones are passed over and said."""

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from manifests.extras import how_to_get
from manifests.files import FormatError, read_json
from manifests.guard import Guard
from manifests.store import path_of
from manifests.verify import is_run
from pipeline.inputs.parquet import located
from pipeline.inputs.tars import name_in_utf8
from pipeline.recipes.datasets import DATASETS, Dataset
from pipeline.recipes.schema import Recipe, RecipeError

LEDGER = "input.json"
"""The list of a run's input files, in its manifests/."""
SAID_OF_OTHERS = {
    "parquet": "files in folders are passed over: no ending of a table",
    "tar": "files are passed over: neither .tar nor .parquet (a packed tar is read once it is unpacked)",
}
STATS = "_stats.json"
"""What img2dataset writes beside each of its tars."""
HIDDEN = (".", "_")
"""What systems and writers put beside tables begins so: ._p.parquet, _SUCCESS, _temporary/."""
MAGIC = re.compile(r"[*?\[]")
KINDS = {"parquet": "a Parquet table", "jsonl": "lines of JSON", "tar": "a tar of pictures"}
"""What the files of a data set are, for errors."""


@dataclass
class Listing:
    """The files found so far, as paths of one file system; those passed over, text beside files of the data set's own
    kind, and beside tables and tars files of other kinds; tars in capitals beside their table."""

    dataset: Dataset
    known: frozenset[str] = frozenset()
    """Names that the run folder's list has: what was read before hidden files were passed over stays."""
    paths: set[str] = field(default_factory=set)
    hidden: list[str] = field(default_factory=list)
    barred: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    capitals: list[str] = field(default_factory=list)

    def add_folder(self, filesystem: Any, folder: str) -> None:
        """Add what a folder holds of the data set; text where it has nothing else."""
        found = list(self._in_folder(filesystem, folder))
        first = [path for path in found if _ends(path, self.dataset.endings)]
        self.paths.update(first or found)
        self.beside += sorted({*found} - {*first}) if first else []

    def _in_folder(self, filesystem: Any, folder: str) -> Iterator[str]:
        for path in walk(filesystem, folder, self.hidden, self.barred):
            is_hidden = _is_hidden(path.rpartition("/")[2]) and not self._is_known(path)
            if not _ends(path, (*self.dataset.endings, *self.dataset.text_endings)):
                self.others += [path] if self.dataset.kind in SAID_OF_OTHERS and not is_hidden else []
            elif is_hidden:
                self.hidden.append(path)
            else:
                yield path

    def add_glob(self, filesystem: Any, pattern: str) -> None:
        """Add what a glob matches, a folder that is named as a file of the data set too, as Spark writes tables; a part
        of the glob that exists as it is written is no glob."""
        fixed = literal_folder(filesystem, pattern)
        if MAGIC.search(fixed):
            matches = re.compile(glob_translate(pattern[len(fixed) + 1 :])).match
            found = [path for path in walk(filesystem, fixed) if matches(path[len(fixed) + 1 :])]
        else:
            found = []
            for path in filesystem.glob(pattern):
                if not filesystem.isdir(path):
                    found.append(path)
                elif _ends(path, self.dataset.endings) and not _is_hidden(path.rstrip("/").rpartition("/")[2]):
                    self.add_folder(filesystem, path)
        asked = {part[:1] for part in pattern[len(fixed) :].split("/")}
        for path in found:
            odd = {part[0] for part in path[len(fixed) :].split("/") if part.startswith(HIDDEN)} - asked
            if odd and not self._is_known(path):
                self.hidden.append(path)
            else:
                self.paths.add(path)

    def _is_known(self, path: str) -> bool:
        return any(f"/{path}".endswith(f"/{name}") for name in self.known)


def _ends(path: str, endings: tuple[str, ...]) -> bool:
    """Tell whether a path ends so, in capitals too."""
    return path.lower().endswith(endings)


def _is_hidden(name: str) -> bool:
    return name.startswith(HIDDEN)


def walk(
    filesystem: Any, folder: str, hidden: list[str] | None = None, barred: list[str] | None = None
) -> Iterator[str]:
    """Yield the paths of the files below a folder, to any depth; no run folder is entered. With `hidden`, neither are
    hidden folders: they are added to it. Of a folder that links reach twice the files come once.

    A folder that may not be read is added to `barred`. Raises OSError for the folder itself.
    """
    waiting, seen = [folder.rstrip("/")], set[tuple[int, int]]()
    while waiting:
        here = waiting.pop()
        is_local = isinstance(filesystem, LocalFileSystem)
        if is_local:
            status = os.stat(here or "/")
            if (status.st_dev, status.st_ino) in seen or is_run(Path(here or "/")):
                continue
            seen.add((status.st_dev, status.st_ino))
        if is_local and barred is not None and here != folder.rstrip("/") and not os.access(here, os.R_OK | os.X_OK):
            barred.append(f"{here}/")
            continue
        entries = _local_entries(here) if is_local else iter(_beside_runs(filesystem, here))
        for path, is_folder in entries:
            if not is_folder:
                yield path
            elif hidden is not None and _is_hidden(path.rpartition("/")[2]):
                hidden.append(f"{path}/")
            else:
                waiting.append(path)


def _local_entries(folder: str) -> Iterator[tuple[str, bool]]:
    with os.scandir(folder or "/") as entries:
        for entry in entries:
            yield f"{folder}/{entry.name}", entry.is_dir()


def _beside_runs(filesystem: Any, folder: str) -> list[tuple[str, bool]]:
    """Return what lies in a folder of a store, nothing of a run folder's."""
    entries = list(_remote_entries(filesystem, folder))
    has_manifests = any(is_folder and path.endswith("/manifests") for path, is_folder in entries)
    return [] if has_manifests and is_run(path_of(filesystem.unstrip_protocol(folder))) else entries


def _remote_entries(filesystem: Any, folder: str) -> Iterator[tuple[str, bool]]:
    for entry in filesystem.ls(folder, detail=True):
        path = str(entry["name"]).rstrip("/")
        if path.strip("/") != folder.strip("/"):  # some stores name the folder itself
            yield path, entry["type"] == "directory"


def literal_folder(filesystem: Any, pattern: str) -> str:
    """Return the part of a glob before its first wildcard, up to a slash; a folder that exists as it is written holds
    none, whatever its name."""
    parts = pattern.split("/")
    count = 0
    while count < len(parts) - 1:
        folder = "/".join(parts[: count + 1])
        if MAGIC.search(parts[count]) and not filesystem.isdir(folder):
            break
        count += 1
    return "/".join(parts[:count])


def _filesystem(pattern: str) -> tuple[Any, str]:
    """Return fsspec's file system and the path in it. Raises RecipeError for a protocol that it does not know or cannot
    load."""
    try:
        filesystem, path = located(pattern)
    except (ValueError, ImportError) as error:
        get = f". Get it with: {how_to_get('s3')}" if pattern.startswith(("s3:", "s3a:")) else ""
        raise RecipeError(f"input.files: {pattern!r} cannot be opened by fsspec: {error}{get}") from error
    return filesystem, path


def _matches(pattern: str, listing: Listing) -> set[str]:
    """Return the URLs of the files that a pattern means. Raises RecipeError for a store that cannot be asked; each kind
    of store raises its own classes, such as botocore's."""
    filesystem, path = _filesystem(pattern)
    with Guard(passing=(OSError,)) as guard:
        if filesystem.isdir(path):
            listing.add_folder(filesystem, path)
        elif MAGIC.search(path) and filesystem.isfile(path):
            listing.paths.add(path)
        else:
            listing.add_glob(filesystem, path)
        found = {filesystem.unstrip_protocol(match) for match in listing.paths}
        listing.paths.clear()
        return found
    cause = f"{type(guard.error).__name__}: {(str(guard.error).splitlines() or [''])[0][:200]}"
    raise RecipeError(f"input.files: {pattern!r} cannot be listed ({cause})") from guard.error


def find_files(recipe: Recipe, notes: list[str] | None = None) -> list[str]:
    """Return the input's files as URLs, sorted; of a tar and its table the table. What was passed over is said in
    `notes`. Raises RecipeError when there are none."""
    patterns = [recipe.input.files] if isinstance(recipe.input.files, str) else recipe.input.files
    dataset = DATASETS[recipe.input.dataset]
    listing = Listing(dataset, _known_names(recipe.root))
    found = {url for pattern in patterns for url in _matches(pattern, listing)}
    if dataset.kind == "tar":
        found = set(_without_tars_of_tables(found, listing))
    hidden = [path for path in listing.hidden if not listing._is_known(path)]
    said = [
        *_said(hidden, "hidden files and folders are passed over (their names begin with . or _)"),
        *_said(listing.barred, "folders may not be read"),
        *_said({path for path in listing.others if not path.endswith(STATS)}, SAID_OF_OTHERS.get(dataset.kind, "")),
        *_said(listing.capitals, "tars are passed over: beside its table a tar is read where its name ends with .tar"),
        *_said(
            listing.beside, f"files are not read, as {dataset.endings[0]} files are beside them; name them to read them"
        ),
    ]
    if not found:
        wanted = " or ".join((*dataset.endings, *dataset.text_endings[:5]))
        raise RecipeError(
            f"input.files: no file matches {', '.join(map(repr, patterns))};"
            f" {recipe.input.dataset!r} wants {KINDS[dataset.kind]} ({wanted}): give files, a folder or a glob"
            + "".join(f"; {note}" for note in said)
        )
    if notes is not None:
        notes += said
    return sorted(found)


def _said(paths: Collection[str], what: str) -> list[str]:
    return [f"{len(paths):,} {what}, such as {name_in_utf8(min(paths))}"] if paths else []


def _known_names(root: Path) -> frozenset[str]:
    """Return the hidden files that a run folder's list has, by their names there."""
    try:
        entries = read_json(root / "manifests" / LEDGER)["files"]
        names = [str(entry["name"]) for entry in entries if not entry["fault"]]
    except (OSError, FormatError, KeyError, TypeError):
        return frozenset()
    return frozenset(name for name in names if any(map(_is_hidden, name.split("/"))))


def known_digests(root: Path) -> dict[str, str]:
    """Return of the files that a run folder has made tables of: what the file system said of them -> their sha256."""
    try:
        entries = read_json(root / "manifests" / LEDGER)["files"]
        return {str(entry["seen"]): str(entry["footer"]) for entry in entries if entry.get("made") and entry["seen"]}
    except (OSError, FormatError, KeyError, TypeError):
        return {}


def _without_tars_of_tables(urls: set[str], listing: Listing) -> Iterator[str]:
    """Yield of tars and tables each table, and each tar that has none; add what is neither, and tars that a table is
    beside but does not find, to the listing."""
    for url in urls:
        filesystem, path = located(url)
        if not url.endswith(".parquet") and not _ends(url, (".tar",)):
            listing.others.append(path)
        elif url.lower().endswith(".tar") and filesystem.exists(table := f"{path.rpartition('.')[0]}.parquet"):
            listing.capitals += [] if url.endswith(".tar") else [path]
            yield str(filesystem.unstrip_protocol(table))
        else:
            yield url
