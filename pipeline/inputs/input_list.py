"""Keep the list of the files that a run was made from: another input is refused, added files get their place."""

from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from manifests.files import FormatError, read_json, write_json
from manifests.journal import records_of
from pipeline.inputs.errors import BrokenInput
from pipeline.inputs.files import InputFile
from pipeline.inputs.find import LEDGER
from pipeline.inputs.parquet import RowGroups
from pipeline.recipes.schema import RecipeError

__all__ = ["LEDGER", "input_batches", "register_files", "registered_files", "reopen"]


def register_files(root: Path, files: list[InputFile]) -> list[InputFile]:
    """Tie the run folder to this input and return its files in the folder's order, or raise RecipeError for another
    input.

    Files may be added: they come after those that were there, as a batch of their own. A file that was there before
    must be there unchanged, unless it could not be read: then it counts as added when it can.
    """
    before = _read_ledger(root)
    known = [file for file in before if not file.fault]
    left = {file.name: file for file in files}
    stay: list[InputFile] = []
    for file in known:
        found = left.pop(_find(file, left), None)
        if found is None:
            what = "has other content now" if file.name in left else "is not among the files now"
            raise _another(root, file.name, what)
        _check_content(root, file, found)
        stay.append(replace(found, name=file.name, batch=file.batch))
    batch = 1 + max((file.batch for file in before), default=-1)
    still_faulty = {
        file.name: file.batch for file in before if file.fault and file.name in left and left[file.name].fault
    }
    taken = {file.name for file in stay}
    added = [
        replace(file, name=_free(file, taken), batch=still_faulty.get(name, batch))
        for name, file in sorted(left.items(), key=lambda item: (bool(item[1].fault), item[0]))
    ]
    entries = [_entry(file) for file in (*stay, *added)]
    write_json(root / "manifests" / LEDGER, {"files": entries}, sealed=True)
    return [*stay, *added]


def _entry(file: InputFile) -> dict[str, Any]:
    """Return what the list says of a file: a table that was made of it by its place in the run folder."""
    said = {name: value for name, value in asdict(file).items() if name != "unread"}
    return {**said, **({"url": file.made[0]} if file.made else {})}


def _another(root: Path, name: str, what: str) -> RecipeError:
    return RecipeError(
        f"{root}: made from another input: {name} {what}; use another output.root (--out DIR) for another input"
    )


def _find(file: InputFile, among: dict[str, InputFile]) -> str:
    """Return the name of the file that this one is now: its own, else one that ends with it (files in other folders
    were added), or that it ends with (a faulty file in another folder is passed over now)."""
    longer = sorted(name for name in among if name.endswith(f"/{file.name}"))
    names = [file.name, *longer, *sorted(name for name in among if file.name.endswith(f"/{name}"))]
    same = [
        name for name in names if name in among and (among[name].bytes, among[name].footer) == (file.bytes, file.footer)
    ]
    return same[0] if same else ""


def _free(file: InputFile, taken: set[str]) -> str:
    """Return a name that no other file has, with as many folders as that takes."""
    path = PurePosixPath(file.url.split("://", 1)[-1])
    names = [file.name, *("/".join(path.parts[-count:]) for count in range(1, len(path.parts) + 1)), file.url]
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def _check_content(root: Path, before: InputFile, now: InputFile) -> None:
    """Raise RecipeError when the bytes that finished units have read are others now.

    Where the file system says that nothing has changed, none are read; remote files are known by their footer alone. A
    table of the run folder that was lost and made again may be another one: an earlier version may have read the file
    otherwise.
    """
    made_anew = bool(before.made and now.made and before.made[0] == now.made[0] and before.made != now.made)
    if now.seen == before.seen and not made_anew:
        return
    runs = [record.read for record in records_of(root, "select") if record.read.get("name") == before.name]
    with RowGroups(now.url) as file:
        for read in runs:
            if file.digest(range(*read["groups"]), read["columns"]) != read["sha256"]:
                raise _another(root, before.name, "has other content now")


def _read_ledger(root: Path) -> list[InputFile]:
    try:
        return registered_files(root)
    except (OSError, FormatError):
        return []


def reopen(url: str, name: str) -> RowGroups:
    """Open a table of the list. Raises RecipeError where it was taken away, closed to us or written anew since the list
    was made, OSError where its store does not answer."""
    try:
        return RowGroups(url)
    except (FileNotFoundError, NotADirectoryError, PermissionError, BrokenInput) as error:
        cause = error.cause if isinstance(error, BrokenInput) else error.strerror or type(error).__name__
        raise RecipeError(
            f"input: {name} could be read when the run began, and cannot now ({cause}); put it back and run the same"
            " command again: finished shards stay"
        ) from error


def registered_files(root: Path) -> list[InputFile]:
    """Return the files that the run folder belongs to, in its order; tables made of them lie in the folder, wherever
    that is now. Raises OSError where there is no list and FormatError for one of another form."""
    path = root / "manifests" / LEDGER
    entries = read_json(path)
    try:
        return [_input_file(root, entry) for entry in entries["files"]]
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path}: no list of input files ({error!r})") from error


def _input_file(root: Path, entry: dict[str, Any]) -> InputFile:
    made = tuple(entry.get("made", ()))
    url = str((root / made[0]).absolute()) if made else entry["url"]
    return InputFile(
        **{**entry, "url": url, "groups": tuple(entry["groups"]), "columns": tuple(entry["columns"]), "made": made}
    )


def input_batches(root: Path) -> pa.Table:
    """Return a table of source (the file's name) and batch (see InputFile) of the run folder's files."""
    files = registered_files(root)
    return pa.table(
        {
            "source": pa.array([file.name for file in files], pa.string()),
            "batch": pa.array([file.batch for file in files], pa.int64()),
        }
    )
