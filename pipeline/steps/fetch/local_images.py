"""Hand over pictures that came with the input, as files or in tars, where others come from the web: an answer for every
row."""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filters.fetch.digests import NONE, digests_of
from filters.fetch.img2dataset import reason_of_download, reason_of_picture
from filters.fetch.messages import Answer
from manifests.reasons import OF_FETCH, is_status
from pipeline.inputs.files import InputFile
from pipeline.inputs.input_list import registered_files, reopen
from pipeline.inputs.parquet import BrokenGroup, RowGroups, is_local, located
from pipeline.inputs.tars import BrokenTar, pictures

Row = dict[str, Any]
NOTES = ("key", "status", "error_message")
THEIRS = {"image too small": "size", "aspect ratio too large": "aspect"}
"""What img2dataset says of pictures that its own options left out, as the rules that would have."""


@dataclass(frozen=True)
class OwnPictures:
    """The pictures of a run's input files. `max_bytes`: a larger one is `too_large` and not read."""

    files: dict[str, InputFile]
    max_bytes: int

    @classmethod
    def of(cls, root: Path, max_bytes: int) -> "OwnPictures":
        """Take the files that the run folder belongs to."""
        return cls({file.name: file for file in registered_files(root)}, max_bytes)

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer]:
        """Yield one answer for every planned row (uid, url, source, source_row), source by source; no request is
        made."""
        sources: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            sources[row["source"]].append(row)
        for source, found in sources.items():
            file = self.files[source]
            yield from (
                self._of_tar(file, found) if file.pictures.lower().endswith(".tar") else self._of_folder(file, found)
            )

    def _of_folder(self, file: InputFile, rows: list[Row]) -> Iterator[Answer]:
        filesystem, root = located(file.pictures)
        for row in rows:
            path = f"{root.rstrip('/')}/{row['url']}"
            try:
                reason = (
                    self._refused(path, root)
                    if is_local(file.pictures)
                    else _size_fault(filesystem.size(path), self.max_bytes)
                )
                body = None if reason else filesystem.cat_file(path)
            except (OSError, ValueError) as error:
                reason, body = "missing_file", None
                yield _answer(row, reason, body, str(error))
                continue
            yield _answer(row, reason or ("" if body else "empty_body"), body or None)

    def _refused(self, path: str, root: str) -> str:
        """Return why a local file is not read: it leads out of the root, is no plain file, or has the wrong size; ""
        where it is fine."""
        real = os.path.realpath(path)
        if os.path.commonpath([real, os.path.realpath(root)]) != os.path.realpath(root):
            return "blocked_path"
        found = os.stat(real)
        return _size_fault(found.st_size, self.max_bytes) if stat.S_ISREG(found.st_mode) else "missing_file"

    def _of_tar(self, file: InputFile, rows: list[Row]) -> Iterator[Answer]:
        notes = _notes(file, [row["source_row"] for row in rows])
        waiting: dict[str, Row] = {}
        for row in rows:
            note = notes.get(row["source_row"], {})
            if note.get("status") in (None, "success") and note.get("key") not in (None, *waiting):
                waiting[note["key"]] = row
            else:
                yield _failed(row, note)
        reason, detail = "missing_file", "the tar holds no such picture"
        try:
            for key, body, fault in pictures(file.pictures, waiting.keys(), self.max_bytes):
                yield _answer(waiting.pop(key), fault, body)
        except BrokenTar as error:
            reason, detail = "broken_tar", error.cause
        except OSError as error:
            detail = str(error)
        yield from (_answer(row, reason, None, detail) for row in waiting.values())


def _size_fault(size: int | None, max_bytes: int) -> str:
    return "too_large" if size is not None and size > max_bytes else ""


def _answer(row: Row, reason: str, body: bytes | None, detail: str = "") -> Answer:
    digests = NONE if body is None else digests_of(body)
    return Answer(row["uid"], reason or None, body, None, row["url"], detail, digests=digests)


def _failed(row: Row, note: Row) -> Answer:
    """Return the answer for a row whose download had failed before: img2dataset's words, or ours, as one of our
    reasons."""
    status, said = note.get("status"), note.get("error_message") or ""
    if status in (None, "success"):
        return _answer(row, "missing_file", None, "no key, or a key that another row has")
    if said in OF_FETCH or is_status(said):  # our own pairs/
        return _answer(row, said, None, status)
    reason = THEIRS.get(said) or (
        reason_of_picture(said) if status == "failed_to_resize" else reason_of_download(said)[0]
    )
    return _answer(row, reason, None, f"{status}: {said}")


def _notes(file: InputFile, wanted: list[int]) -> dict[int, Row]:
    """Return row number -> key, status and error_message, reading only the row groups that hold these rows."""
    found: dict[int, Row] = {}
    numbers = frozenset(wanted)
    with reopen(file.url, file.name) as table:
        names = [name for name in NOTES if name in table.names]
        first = 0
        for group, count in enumerate(table.rows):
            if names and not numbers.isdisjoint(range(first, first + count)):
                found.update(
                    (first + place, row)
                    for place, row in enumerate(_group(table, group, names))
                    if first + place in numbers
                )
            first += count
    return found


def _group(table: RowGroups, group: int, names: list[str]) -> list[Row]:
    try:
        return [row for batch in table.batches(group, names, 65_536) for row in batch.to_pylist()]
    except BrokenGroup:
        return []
