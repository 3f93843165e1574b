"""Read the members of tars of samples (KEY.jpg, KEY.txt, KEY.json), as img2dataset and we write them, and their
pictures."""

import re
import tarfile
from collections.abc import Collection, Iterator
from typing import Any

import fsspec

from pipeline.inputs.errors import BrokenInput
from pipeline.inputs.jsonl import whole_text

_KNOWN = "jpg jpeg jpe jfif png webp gif bmp tif tiff avif heic heif jxl jp2"
PICTURES = frozenset(_KNOWN.split())
"""Endings of the member that is a sample's picture; what its bytes are is found out when they are read."""
ADDED = re.compile(r"(^|/)(\._[^/]*$|\.DS_Store$|__MACOSX/|__\w+__(\.\w+)*$)")
"""What macOS puts beside files, and WebDataset's notes on the tar as a whole: no samples."""


class BrokenTar(BrokenInput):
    """A tar ends early or holds what is no header; what came before is good."""


def entries(tar: tarfile.TarFile, file: Any) -> Iterator[tarfile.TarInfo]:
    """Yield every member but folders and what systems and tools add of their own, in order; none of them is held.

    Raises BrokenTar where the tar ends without its end mark: tarfile itself ends silently at a cut between samples and
    at a damaged header.
    """
    try:
        for info in tar:
            vars(tar)["members"].clear()  # it would keep each of them
            if not info.isdir() and not ADDED.search(info.name):
                yield info
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise _broken(tar, str(error)) from error
    file.seek(tar.offset)
    tail = file.read(tarfile.BLOCKSIZE)
    if len(tail) < tarfile.BLOCKSIZE or any(tail):
        raise _broken(tar, f"no end mark at byte {tar.offset}")


def split_name(name: str) -> tuple[str, str, str]:
    """Return (name up to the first dot behind the last slash: the key; up to the last dot; what stands behind that, in
    small letters)."""
    whole = name if name.isascii() else whole_text(name)
    folder, slash, base = whole.removeprefix("./").rpartition("/")
    stem, dot, ending = base.rpartition(".")
    return (
        f"{folder}{slash}{base.partition('.')[0]}",
        f"{folder}{slash}{stem if dot else base}",
        ending.lower() if dot else "",
    )


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


def pictures(url: str, wanted: Collection[str], max_bytes: int) -> Iterator[tuple[str, bytes | None, str]]:
    """Yield (key, bytes or None, reason or "") of the wanted pictures that a tar holds, once each, in its order; a key
    is a member's name up to the last dot.

    A member above `max_bytes` is `too_large` and not read. Raises BrokenTar at the damage, OSError where there is no
    tar.
    """
    tar, file = opened(url)
    left = set(wanted)
    with tar, file:
        for info in entries(tar, file):
            _, key, ending = split_name(info.name)
            if key not in left or ending not in PICTURES or not info.isreg():
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
