"""Find the weights of filters and scorers on this machine: inside an installed package, or where the recipe says."""

import importlib.util
from functools import lru_cache
from pathlib import Path

from manifests.extras import how_to_get
from manifests.weights import WeightsError, WeightsFile, weights_file

SCORE = how_to_get("score")


def packaged(name: str, package: str, inside: str, sha256: str, get: str = SCORE) -> WeightsFile:
    """Return the identity of the file `inside` an importable package, without importing it.

    `get` is the command that installs the package.
    Raises WeightsError where the package is missing, or its file is not the one with that sha256.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"weights of {name}: they come inside the package {package!r}, which is not installed. Get it with: {get}"
        )
    return local(name, Path(spec.origin).parent / inside, f"Get the package anew with: {get}", sha256)


def local(name: str, path: str | Path, where: str, sha256: str = "") -> WeightsFile:
    """Return the identity of a local file, hashed once per process as long as its size and time stay.

    `where` says what to get and where to put it. Raises WeightsError for a missing or altered file.
    """
    found = Path(path).expanduser()
    state = (found.stat().st_size, found.stat().st_mtime_ns) if found.is_file() else (0, 0)
    return _hashed(name, str(path), where, sha256, state)


@lru_cache(maxsize=64)
def _hashed(name: str, path: str, where: str, sha256: str, state: tuple[int, int]) -> WeightsFile:
    return weights_file(name, path, where=where, sha256=sha256)
