"""Find the weights of filters and scorers on this machine: inside an installed package, or where the recipe says."""

import importlib.util
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
    """Return the identity of a local file, hashed once per process as long as it stays unchanged.

    `where` says what to get and where to put it. Raises WeightsError for a missing or altered file.
    """
    return weights_file(name, path, where=where, sha256=sha256)
