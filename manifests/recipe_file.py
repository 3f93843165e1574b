"""Head a run's recipe.toml with the sha256 of what follows, so that a change of a single byte is seen."""

import hashlib
import tomllib
from pathlib import Path
from typing import Any

from manifests.files import FormatError, parsing
from manifests.regular_files import read_plain

HEAD = "# The recipe of this run, every value resolved: edit a copy, not this file. sha256 of what follows: "


def headed(text: bytes) -> bytes:
    """Return the bytes of recipe.toml for its TOML text."""
    return f"{HEAD}{hashlib.sha256(text).hexdigest()}\n".encode() + text


def read_headed(path: Path) -> dict[str, Any]:
    """Return the values of a run's recipe.toml. Raises FormatError when a byte of it was changed, OSError."""
    head, _, text = read_plain(path).partition(b"\n")
    if head != f"{HEAD}{hashlib.sha256(text).hexdigest()}".encode():
        raise FormatError(
            f"{path}: not the text that its first line names the sha256 of: it was changed after it was written"
        )
    with parsing(path, "not TOML"):
        return tomllib.loads(text.decode())
