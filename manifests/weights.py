"""Name the weights that made a number: file, digest, and whether they are stand-ins."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from manifests.checksums import cached_sha256

STAND_IN = "stand-in"
"""The recipe value that asks for seeded random weights in the real format instead of a file."""


class WeightsError(ValueError):
    """Weights are missing, altered, or of the wrong shape; the message says what to get and where to put it."""


@dataclass(frozen=True)
class WeightsFile:
    """What a manifest records of one set of weights: `sha256` of the file's bytes, never its folder."""

    name: str
    sha256: str
    stand_in: bool = False
    path: str = ""

    @property
    def label(self) -> str:
        """Return the name as every output prints it: stand-ins always say so."""
        return f"{self.name} (stand-in weights)" if self.stand_in else self.name

    def record(self) -> dict[str, str | bool]:
        """Return the manifest entry: the path stays out, so that a digest does not depend on it."""
        return {"name": self.name, "sha256": self.sha256, "stand_in": self.stand_in}


def weights_file(name: str, path: str | Path, *, where: str, sha256: str = "") -> WeightsFile:
    """Return the identity of a local weights file.

    `where` says what to get and where to put it, and ends the error for a missing file.
    `sha256` (whole or its first hex digits), where given, must match. An unchanged file is hashed once per process.
    Raises WeightsError for a missing, unreadable or altered file.
    """
    try:
        found = Path(path).expanduser()
        got = cached_sha256(found) if found.is_file() else None
    except (OSError, RuntimeError) as error:  # RuntimeError: the home folder of a user that there is not
        why = getattr(error, "strerror", None) or error
        raise WeightsError(f"weights of {name}: {str(path)!r} cannot be read ({why}). {where}") from error
    if got is None:
        raise WeightsError(f"weights of {name}: no file at {str(path)!r}. {where}")
    if sha256 and not got.startswith(sha256):
        raise WeightsError(
            f"weights of {name}: {found} has sha256 {got[:16]}…, wanted {sha256[:16]}…: the file is altered or another"
            f" version. {where}"
        )
    return WeightsFile(name, got, path=str(found))


def stand_in(name: str, recipe: str) -> WeightsFile:
    """Return the identity of seeded random weights; `recipe` (format, sizes, seed) stands for their bytes."""
    return WeightsFile(name, hashlib.sha256(f"stand-in|{name}|{recipe}".encode()).hexdigest(), stand_in=True)
