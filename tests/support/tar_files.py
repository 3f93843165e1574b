"""Tars member by member, for tests of what reads them."""

import io
import tarfile
from pathlib import Path

Member = str | tuple[str, bytes]
SAMPLES = [
    ("k0", {"jpg": b"zero", "json": b'{"url": "http://a.test/0", "caption": "said", "similarity": 0.5}'}),
    ("k1", {"txt": b"caf\xe9", "webp": b"one"}),
    ("k2", {"txt": b"no picture"}),
    ("k3", {"png": b"", "json": b"no JSON"}),
]


def write_members(path: Path, *members: Member) -> None:
    """Write files that hold `of NAME`; of (name, type of a member) a link or device of no bytes."""
    with tarfile.open(path, "w") as file:
        for name, *kind in (member if isinstance(member, tuple) else (member,) for member in members):
            info = tarfile.TarInfo(str(name))
            data = b"" if kind else f"of {name}".encode()
            info.size, info.linkname = len(data), "else.jpg"
            info.type = kind[0] if kind else tarfile.REGTYPE  # type: ignore[assignment]
            file.addfile(info, io.BytesIO(data))


def cut(path: Path, count: int) -> None:
    """Keep the first so many bytes of a file."""
    path.write_bytes(path.read_bytes()[:count])
