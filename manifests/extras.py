"""Import what an extra of the package brings, and say in one sentence which extra is missing."""

import importlib.util
from collections.abc import Iterable
from typing import Any

from manifests.weights import WeightsError

PACKAGE = "tessera-t2i"


class MissingExtra(WeightsError):
    """A package that one scorer, one step or one command needs is not installed; the message names the extra."""


def how_to_get(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '{PACKAGE}[{extra}]'"


def require(packages: Iterable[str], extra: str) -> None:
    """Raise MissingExtra for the first of these packages that is not there; none is imported."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise _missing(package, extra)


def need(module: str, extra: str) -> Any:
    """Return the module. Raises MissingExtra, naming the command that installs it, where its package is not there.

    A package that is there and cannot import another one of its own raises as it does.
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise _missing(package, extra) from error


def _missing(package: str, extra: str) -> MissingExtra:
    return MissingExtra(f"the package {package!r} is not installed. Get it with: {how_to_get(extra)}")
