"""Write the `.npz` that ADM's evaluation reads, arr_0 = uint8 (N, H, W, 3), picture by picture, and go on after a kill.

An .npz is a zip archive of .npy files. Its one member is stored, not packed, and its length is known before: so its
bytes go to their place at once, memory holds one block, and the two checksums are filled in at the end.
The layout is that of APPNOTE.TXT 6.3.10 (4.3.7 local header, 4.3.12 directory, 4.3.14 and 4.3.15 for more than 4 GiB).
"""

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

NAME = b"arr_0.npy"
STORED, NEEDS = 0, 45  # no packing; version 4.5 of the format, the first with 64-bit lengths
DATE = (1 << 5) | 1  # 1 January 1980, the zero of the format: the same bytes whenever it is written
FULL = 0xFFFFFFFF  # "see the 64-bit field"
READ_BYTES = 1 << 22


@dataclass(frozen=True)
class Npz:
    """A file in the making: N pictures of `side` x `side` pixels."""

    path: Path
    count: int
    side: int

    @property
    def part(self) -> Path:
        """Return where the file stands until it is whole."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def each(self) -> int:
        """Return the bytes of one picture."""
        return self.side * self.side * 3

    @property
    def head(self) -> bytes:
        """Return the header of the .npy inside."""
        buffer = io.BytesIO()
        shape = (self.count, self.side, self.side, 3)
        np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return buffer.getvalue()

    @property
    def start(self) -> int:
        """Return the place of the first picture in the file."""
        return len(self._local(0)) + len(self.head)

    @property
    def pictures(self) -> int:
        """Return how many whole pictures are there."""
        if self.path.is_file():
            return self.count
        size = self.part.stat().st_size if self.part.is_file() else 0
        return min(self.count, max(0, size - self.start) // self.each)

    def add(self, first: int, pixels_BHWC: Pixels) -> None:
        """Put pictures at their place, picture number `first` on; what stands behind is cut off. Raises OSError."""
        with open(self.part, "r+b" if self.part.is_file() else "x+b") as file:
            file.write(self._local(0) + self.head)
            file.truncate(self.start + first * self.each)
            file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(pixels_BHWC).data)
            file.flush()
            os.fsync(file.fileno())

    def read(self, number: int) -> Pixels:
        """Return a picture that is there, uint8 (H, W, 3)."""
        with open(self.path if self.path.is_file() else self.part, "rb") as file:
            file.seek(self.start + number * self.each)
            return np.frombuffer(file.read(self.each), np.uint8).reshape(self.side, self.side, 3)

    def finish(self) -> None:
        """Sum up the pictures, close the archive and give it its name. Raises OSError."""
        if self.path.is_file():
            return
        with open(self.part, "r+b") as file:
            file.truncate(self.start + self.count * self.each)
            file.seek(len(self._local(0)))
            total = 0
            while block := file.read(READ_BYTES):
                total = zlib.crc32(block, total)
            file.write(self._directory(total, file.tell()))
            file.seek(0)
            file.write(self._local(total))
            file.flush()
            os.fsync(file.fileno())
        self.part.replace(self.path)

    def _member(self) -> int:
        return len(self.head) + self.count * self.each

    def _local(self, crc: int) -> bytes:
        """Return the header before the member, both lengths in its 64-bit field."""
        extra = struct.pack("<HHQQ", 1, 16, self._member(), self._member())
        fixed = struct.pack("<4s5H3I2H", b"PK\3\4", NEEDS, 0, STORED, 0, DATE, crc, FULL, FULL, len(NAME), len(extra))
        return fixed + NAME + extra

    def _directory(self, crc: int, place: int) -> bytes:
        """Return the directory that stands at `place`: one member, and the two ends."""
        extra = struct.pack("<HHQQ", 1, 16, self._member(), self._member())
        entry = struct.pack(
            *("<4s6H3I5H2I", b"PK\1\2", NEEDS, NEEDS, 0, STORED, 0, DATE, crc, FULL, FULL),
            *(len(NAME), len(extra), 0, 0, 0, 0, 0),
        )
        entry += NAME + extra
        end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, NEEDS, NEEDS, 0, 0, 1, 1, len(entry), place)
        locator = struct.pack("<4sIQI", b"PK\6\7", 0, place + len(entry), 1)
        return entry + end + locator + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry), FULL, 0)
