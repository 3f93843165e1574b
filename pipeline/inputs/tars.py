"""Read the members of tars of samples (KEY.jpg, KEY.txt, KEY.json), as img2dataset and we write them, and their
pictures."""

import re
import tarfile
from collections.abc import Collection, Iterator
from typing import Any, Self

from pipeline.inputs.errors import BrokenInput
from pipeline.inputs.jsonl import whole_text
from pipeline.inputs.parquet import located

_KNOWN = "jpg jpeg jpe jfif png webp gif bmp tif tiff avif heic heif jxl jp2"
PICTURES = frozenset(_KNOWN.split())
"""Endings of the member that is a sample's picture; what its bytes are is found out when they are read."""
ADDED = re.compile(r"(^|/)(\._[^/]*|\.DS_Store)$")
"""What macOS calls the files that it puts beside others, in __MACOSX/ or not."""
ADDED_MARKS = (b"\0\x05\x16\x07", b"\0\x05\x16\0", b"\0\0\0\1Bud1")
"""First bytes of those files: AppleDouble, AppleSingle, a Finder's list. Without them a member is as any other."""
LOST = re.compile("[\ud800-\udfff]")
"""What tarfile writes for a byte of a name that is not UTF-8."""
TARS_OWN = (b"V", b"D", b"N")
"""Types of members in which GNU tar writes a label and the lists of its folders."""


GNU = b"ustar  \0"
"""The mark of GNU's headers: where others have the first part of a name they have times (`tar -g`)."""
MARK, PREFIX = slice(257, 265), slice(345, 500)


class BrokenTar(BrokenInput):
    """A tar ends early or holds what is no header; what came before is good."""


class Member(tarfile.TarInfo):
    """A member whose name is read as the header's own kind writes it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header of 512 bytes. tarfile takes the times in GNU's for a folder: 15302113665/0.jpg."""
        found = super().frombuf(buf, encoding, errors)
        if buf[MARK] == GNU and found.type not in tarfile.GNU_TYPES:
            times = bytes(buf[PREFIX]).partition(b"\0")[0].decode(encoding, errors)
            found.name = found.name.removeprefix(f"{times}/") if times else found.name
        return found


def entries(tar: tarfile.TarFile, file: Any) -> Iterator[tarfile.TarInfo]:
    """Yield every member but folders and what systems and tools add of their own, in order; none of them is held.

    Raises BrokenTar where the tar ends without its end mark: tarfile itself ends silently at a cut between samples and
    at a damaged header.
    """
    while True:
        try:
            while info := tar.next():
                vars(tar)["members"].clear()  # it would keep each of them
                if not info.isdir() and info.type not in TARS_OWN and not _is_added(info, file):
                    yield info
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            if not (behind := _behind_global(tar, file)):
                raise _broken(tar, str(error)) from error
            tar.offset = behind
        behind = _behind_mark(tar, file)
        if not behind:
            return
        tar.offset = behind


def _is_added(info: tarfile.TarInfo, file: Any) -> bool:
    """Tell what macOS put beside a file, by its name and its first bytes, from a sample that is only called so."""
    if not ADDED.search(info.name) or not info.isreg():
        return False
    file.seek(info.offset_data)
    return bytes(file.read(max(map(len, ADDED_MARKS)))).startswith(ADDED_MARKS)


def _behind_global(tar: tarfile.TarFile, file: Any) -> int:
    """Return the place behind the pax headers of the whole tar at which reading stopped, 0 where there is none: tarfile
    wants a member behind each."""
    place = found = tar.offset
    try:
        while True:
            file.seek(place)
            header = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            if header.type != tarfile.XGLTYPE:
                break
            place += tarfile.BLOCKSIZE * (1 + -(-header.size // tarfile.BLOCKSIZE))
    except (tarfile.HeaderError, OSError):
        pass
    return place if place > found else 0


def _behind_mark(tar: tarfile.TarFile, file: Any) -> int:
    """Return where a further tar begins behind the end mark (two blocks of zeros) at which reading stopped, 0 for none.

    Raises BrokenTar where there is no end mark, or something else behind it: a header that was lost looks like one.
    """
    place = tar.offset
    file.seek(place)
    zeros = 0
    while len(block := file.read(tarfile.BLOCKSIZE)) == tarfile.BLOCKSIZE and not any(block):
        zeros += 1
    if not zeros or (any(block) and zeros < 2):
        raise _broken(tar, f"no end mark at byte {place}")
    if not any(block):
        return 0
    try:
        tarfile.TarInfo.frombuf(block, tar.encoding or "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise _broken(tar, f"no header behind the zeros at byte {place}") from error
    return place + zeros * tarfile.BLOCKSIZE


def split_name(name: str) -> tuple[str, str, str]:
    """Return (name up to the first dot behind the last slash: the key; up to the last dot; what stands behind that, in
    small letters), of its `name_in_utf8`."""
    folder, slash, base = name_in_utf8(name).removeprefix("./").rpartition("/")
    stem, dot, ending = base.rpartition(".")
    return (
        f"{folder}{slash}{base.partition('.')[0]}",
        f"{folder}{slash}{stem if dot else base}",
        ending.lower() if dot else "",
    )


def name_in_utf8(name: str) -> str:
    """Return a name in which each byte that is not UTF-8 is U+FFFD and its two hexadecimal digits, so that names stay
    apart."""
    return name if name.isascii() else LOST.sub(lambda found: f"\ufffd{ord(found[0]) & 0xFF:02X}", name)


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
    filesystem, path = located(url)
    file = filesystem.open(path, "rb")
    try:
        return tarfile.open(name=path, fileobj=file, mode="r:", tarinfo=Member), file
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
            if key not in left and not info.name.isascii():
                _, key, _ = split_name(whole_text(info.name))  # as tables of earlier versions name it
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
