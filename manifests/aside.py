"""Keep what fell out of a plan beside the run: groups of files, each under a sealed record of how its rows were made
and of its files' sha256. No digest of the run depends on them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from manifests.checksums import sha256_file
from manifests.files import FormatError, finished, parsing, read_json, write_json
from manifests.journal import FileRecord

ASIDE = "aside"
"""`aside/STEP/`: rows that are in no shard of the step now, each once."""
UNDER_WAY = ".earlier"
"""`.earlier/STEP/`: shards of the plan before, while those of the new plan are made."""


PAIRS = "-pairs.parquet"
"""End of the name of the table of a fetch's group that says of each picture its URL, caption and sha256."""


@dataclass(frozen=True)
class Group:
    """Rows of one step that were made alike, in one table and what lies beside it.

    `folder`: where its record `NAME.json` and its files `NAME-….parquet`, `NAME-….tar` lie. `made_by`: digest of
    everything but the rows that the values depend on. `table`: the file that says which rows. Paths of `files` are
    names in `folder`, so that a group may move.
    """

    folder: Path
    name: str
    step: str
    made_by: str
    rows: int
    table: str
    files: tuple[FileRecord, ...]

    @property
    def path(self) -> Path:
        """Return the place of the group's record."""
        return self.folder / f"{self.name}.json"

    @property
    def bytes(self) -> int:
        """Return the size of its files."""
        return sum(file.bytes for file in self.files)

    @property
    def pairs(self) -> Path:
        """Return the place of a fetch's table of pictures, where it has one."""
        return self.folder / f"{self.name}{PAIRS}"

    def write(self) -> None:
        """Write the record: from now on the group counts."""
        entry = {"step": self.step, "made_by": self.made_by, "rows": self.rows, "table": self.table}
        write_json(self.path, {**entry, "files": [asdict(file) for file in self.files]}, sealed=True)

    def drop(self) -> None:
        """Remove the group: its record first, so that a kill leaves files that nobody uses."""
        self.path.unlink(missing_ok=True)
        for file in self.files:
            (self.folder / file.path).unlink(missing_ok=True)

    def damaged(self) -> list[str]:
        """Return the names of its files that are missing or not of the recorded sha256. Reads every byte."""
        return [file.path for file in self.files if not _is_whole(self.folder / file.path, file)]


def _is_whole(path: Path, file: FileRecord) -> bool:
    try:
        return path.stat().st_size == file.bytes and sha256_file(path) == file.sha256
    except OSError:
        return False


def parse_group(path: Path, entry: dict[str, Any]) -> Group:
    """Return the group that the record at `path` holds. Raises FormatError for another one."""
    with parsing(path, "not the record of what was set aside"):
        files = tuple(FileRecord(**file) for file in entry["files"])
        texts = [entry["step"], entry["made_by"], entry["table"], *(text for f in files for text in (f.path, f.sha256))]
        numbers = [entry["rows"], *(file.bytes for file in files)]
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for n in numbers):
            raise TypeError("a text or a number is something else")
        foreign = [file.path for file in files if not file.path.startswith(f"{path.stem}-") or "/" in file.path]
        if foreign or entry["table"] not in {file.path for file in files} or entry["step"] != path.parent.name:
            raise ValueError(f"names {(foreign or [entry['table']])[0]}, not files of {path.parent.name} {path.stem}")
    return Group(path.parent, path.stem, entry["step"], entry["made_by"], entry["rows"], entry["table"], files)


def read_group(path: Path) -> Group:
    """Read a group's record. Raises FormatError for one that is damaged, SealError, OSError."""
    return parse_group(path, read_json(path))


def groups(root: Path, place: str, step: str) -> list[Group]:
    """Return the groups of a step below ASIDE or UNDER_WAY whose record is whole, by name."""
    found = []
    for path in finished(root / place / step, "*.json"):
        try:
            found.append(read_group(path))
        except (OSError, FormatError):
            continue
    return found


def unread(root: Path, place: str, step: str) -> Iterator[Path]:
    """Yield the records of a step's groups that are damaged: what lies under them is not used, and not dropped."""
    for path in finished(root / place / step, "*.json"):
        try:
            read_group(path)
        except (OSError, FormatError):
            yield path


def unrecorded(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder of groups that belong to no record, whole or damaged: what a kill left."""
    known = {path.stem for path in finished(folder, "*.json")}
    for path in finished(folder, "*-*.*"):
        if path.suffix in (".parquet", ".tar") and path.name.rpartition("-")[0] not in known:
            yield path


def steps_aside(root: Path, place: str = ASIDE) -> list[str]:
    """Return the steps that have anything below `aside/`, by name."""
    folder = root / place
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
