"""Read tars of samples (KEY.jpg, KEY.txt, KEY.json), as img2dataset and we write them: what they say, and their
pictures."""

import json
import tarfile
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any

import fsspec

from pipeline.inputs.errors import BrokenInput
from pipeline.inputs.jsonl import FAULT

PICTURES = frozenset(("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"))
"""Endings of the member that is a sample's picture."""
MAX_NOTE = 16 << 20
"""Bytes of a .json or .txt member; a larger one counts as not there."""


class BrokenTar(BrokenInput):
    """A tar ends early or holds what is no header; what came before is good."""


def members(tar: tarfile.TarFile, file: Any) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield (key, ending, member) of every plain file, in order. Raises BrokenTar where the tar ends without its end
    mark.

    tarfile itself ends silently at a cut between samples and at a damaged header.
    """
    try:
        for info in tar:
            if info.isreg():
                folder, slash, name = info.name.removeprefix("./").rpartition("/")
                key, _, ending = name.partition(".")
                yield f"{folder}{slash}{key}", ending.lower(), info
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise _broken(tar, str(error)) from error
    file.seek(tar.offset)
    tail = file.read(tarfile.BLOCKSIZE)
    if len(tail) < tarfile.BLOCKSIZE or any(tail):
        raise _broken(tar, f"no end mark at byte {tar.offset}")


def _broken(tar: tarfile.TarFile, cause: str) -> BrokenTar:
    return BrokenTar(str(tar.name or "a tar"), cause)


def content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """Return a member's bytes. Raises BrokenTar where the tar ends within it."""
    try:
        found = tar.extractfile(info)
        data = found.read() if found else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _broken(tar, str(error)) from error
    if len(data) != info.size:
        raise _broken(tar, f"{info.name}: {len(data)} of {info.size} bytes")
    return data


def opened(url: str) -> tuple[tarfile.TarFile, Any]:
    """Open a tar that is not compressed; return it and the file below it. Raises BrokenTar or OSError."""
    filesystem, path = fsspec.url_to_fs(url)
    file = filesystem.open(path, "rb")
    try:
        return tarfile.open(name=path, fileobj=file, mode="r:"), file
    except (tarfile.TarError, EOFError, ValueError) as error:
        file.close()
        raise BrokenTar(path, str(error)) from error


def sample_rows(url: str, name: str, mapping: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a row per sample with a picture, by our columns and `key`, in order; where the tar is broken a last row
    says so.

    A sample without a URL goes by its path inside the data set, `name`/KEY.ENDING. Raises BrokenTar when nothing can be
    read.
    """
    tar, file = opened(url)
    with tar, file:
        for sample in _samples(tar, file):
            yield from _row(sample, name, mapping)


def _samples(tar: tarfile.TarFile, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield what there is of each sample: key, picture (its ending), json and txt (bytes); where the tar is broken a
    last one says so."""
    sample: dict[str, Any] = {}
    try:
        for key, ending, info in members(tar, file):
            if key != sample.get("key"):
                yield sample
                sample = {"key": key}
            if ending in PICTURES:
                sample.setdefault("picture", ending)
            elif ending in ("json", "txt") and info.size <= MAX_NOTE:
                sample[ending] = content(tar, info)
        yield sample
    except BrokenTar:
        if "json" in sample or "txt" in sample:  # else what was to come is missing: it belongs to the rest
            yield sample
        yield {FAULT: "broken_tar"}


def _row(sample: Mapping[str, Any], name: str, mapping: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    if FAULT in sample:
        yield {"key": None, **sample}
    if "picture" not in sample:
        return
    note = _note(sample.get("json", b"{}"))
    row = {ours: note.get(theirs) for ours, theirs in mapping.items()}
    if not isinstance(row["text"], str) and "txt" in sample:
        row["text"] = sample["txt"].decode("utf-8", "replace")
    if not isinstance(row["url"], str) or not row["url"]:
        row["url"] = f"{name}/{sample['key']}.{sample['picture']}"
    yield {**row, "key": sample["key"], FAULT: None}


def _note(data: bytes) -> dict[str, Any]:
    try:
        note = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def pictures(url: str, wanted: Collection[str], max_bytes: int) -> Iterator[tuple[str, bytes | None, str]]:
    """Yield (key, bytes or None, reason or "") of the wanted samples that a tar holds, once each, in its order.

    A member above `max_bytes` is `too_large` and not read. Raises BrokenTar at the damage, OSError where there is no
    tar.
    """
    tar, file = opened(url)
    left = set(wanted)
    with tar, file:
        for key, ending, info in members(tar, file):
            if key not in left or ending not in PICTURES:
                continue
            left.remove(key)
            if info.size > max_bytes:
                yield key, None, "too_large"
            elif info.size == 0:
                yield key, None, "empty_body"
            else:
                yield key, content(tar, info), ""
            if not left:
                return
