"""Find the .npy files that are called by numbers, with or without zeros before them, and those that nothing names."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

NUMBERED = re.compile(r"(?![._]).*\d.*\.npy", re.ASCII | re.DOTALL)
NUMBER = re.compile(r"\d{1,18}\.npy", re.ASCII)
MOST_DIGITS = 18


def arrays(folder: Path) -> Iterator[str]:
    """Yield the names of the .npy files of a folder that have a digit, but hidden ones; none where it is no folder."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if NUMBERED.fullmatch(entry.name):
                yield entry.name


def find_number(folder: Path, name: str) -> Path:
    """Return the file of a number below a folder: the one that is called so (STEM/7.npy), else the first with other
    zeros before it, the fewest first; where there is none the name as it is."""
    path = folder / name
    if path.exists() or not NUMBER.fullmatch(path.name):
        return path
    number = str(int(path.stem))
    padded = (path.with_name(f"{number.zfill(digits)}.npy") for digits in range(len(number), MOST_DIGITS + 1))
    return next((other for other in padded if other.exists()), path)


def beyond(folder: Path, count: int) -> Iterator[tuple[int, str]]:
    """Yield (number, name) of the .npy files of a folder that are not the file of a number below `count`; of a name
    that holds more than a number -1."""
    for name in arrays(folder):
        if not NUMBER.fullmatch(name):
            yield -1, name
        elif (number := int(name.removesuffix(".npy"))) >= count or find_number(folder, f"{number}.npy").name != name:
            yield number, name
