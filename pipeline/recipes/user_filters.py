"""Load the filters of the user's own Python files, which the recipe names, and blame their errors on the right line."""

import functools
import hashlib
import sys
import traceback
from collections.abc import Callable, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from filters.base import FILTERS, forget
from pipeline.recipes.schema import Recipe, RecipeError


@dataclass(frozen=True)
class UserFile:
    """A file of the user's that is loaded: its path, the sha256 of what was run, the module it became."""

    path: Path
    sha256: str
    module: str


_LOADED: dict[Path, UserFile] = {}


def load_user_filters(recipe: Recipe) -> None:
    """Make the filters of the recipe's Python files known, and those of other recipes' files unknown.

    A file whose content has not changed is not run again. Raises RecipeError with file and line.
    """
    named = recipe.filter.python
    paths = [Path(path).absolute() for path in ([named] if isinstance(named, str) else named)]
    for path in set(_LOADED) - set(paths):
        _unload(path)
    for path in dict.fromkeys(paths):
        _load(path)


def user_files(uses: Set[str]) -> list[tuple[str, str]]:
    """Return (name, sha256) of the loaded files that registered any of these filters, sorted."""
    modules = {FILTERS[use].__module__ for use in uses if use in FILTERS}
    return sorted((file.path.name, file.sha256) for file in _LOADED.values() if file.module in modules)


def _unload(path: Path) -> None:
    file = _LOADED.pop(path, None)
    if file is not None:
        forget(file.module)
        sys.modules.pop(file.module, None)


def _load(path: Path) -> None:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise RecipeError(
            f"recipe: filter.python: cannot read {str(path)!r} ({error.strerror}); give Python files beside the recipe"
            " or in this folder"
        ) from error
    sha256 = hashlib.sha256(source).hexdigest()
    if path in _LOADED and _LOADED[path].sha256 == sha256:
        return
    _unload(path)
    module = ModuleType(f"user_filters_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}", f"Filters of {path}.")
    module.__file__ = str(path)
    before = dict(FILTERS)
    sys.modules[module.__name__] = module  # dataclasses look their own module up
    with _Blame(path, "recipe: filter.python", (RecipeError, KeyboardInterrupt)), ExitStack() as undo:
        undo.callback(_restore, before, module.__name__)
        exec(compile(source, str(path), "exec"), module.__dict__)
        _check(path, [(use, found) for use, found in FILTERS.items() if before.get(use) is not found])
        undo.pop_all()  # it went well: nothing is undone
    _LOADED[path] = UserFile(path, sha256, module.__name__)


def _restore(before: dict[str, Any], module: str) -> None:
    FILTERS.clear()
    FILTERS.update(before)
    del sys.modules[module]


@dataclass(frozen=True)
class _Blame:
    """Whatever a user's code raises becomes a RecipeError that names the file and the line; `passing` is left alone."""

    path: Path
    what: str
    passing: tuple[type[BaseException], ...]

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise RecipeError from the error."""
        if error is not None and not isinstance(error, self.passing):
            raise RecipeError(f"{self.what}: {_place(self.path, error)}: {_words(error)}") from error


def _check(path: Path, made: list[tuple[str, Any]]) -> None:
    """Check what a file registered and put a guard around its `keep`. Raises RecipeError."""
    if not made:
        raise RecipeError(
            f'recipe: filter.python: {path} registers no filter; put @register("name") of filters.base over its class'
        )
    for use, found in made:
        inputs = getattr(found, "inputs", None)
        named = isinstance(inputs, tuple) and all(isinstance(name, str) for name in inputs)
        if not (named or isinstance(inputs, property)) or not callable(getattr(found, "keep", None)):
            raise RecipeError(
                f"recipe: filter.python: {path}: filter {use!r} needs `inputs`, a tuple of the columns it reads, and a"
                " method `keep`"
            )
        found.keep = _guarded(path, use, found.keep)


def _guarded(path: Path, use: str, keep: Callable[..., Any]) -> Callable[[Any, pa.RecordBatch], pa.BooleanArray]:
    """Return `keep` so that what goes wrong in it names the file and the line, and its answer is one verdict a row."""

    @functools.wraps(keep)
    def evaluated(self: Any, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Return the verdicts. Raises RecipeError."""
        with _Blame(path, f"filter {use!r}", (KeyboardInterrupt, SystemExit, GeneratorExit)):
            verdict = keep(self, batch)
            if isinstance(verdict, pa.ChunkedArray):
                verdict = verdict.combine_chunks()
            elif isinstance(verdict, np.ndarray | list):
                verdict = pa.array(verdict)
        if pa.types.is_null(getattr(verdict, "type", None) or pa.int8()):
            verdict = verdict.cast(pa.bool_())
        if not isinstance(verdict, pa.BooleanArray) or len(verdict) != batch.num_rows:
            got = f"{len(verdict)} of {verdict.type}" if isinstance(verdict, pa.Array) else repr(verdict)[:80]
            raise RecipeError(
                f"filter {use!r} of {path}: keep gave {got}, wanted true, false or null for each of {batch.num_rows}"
                " rows"
            )
        return verdict

    return evaluated


def _place(path: Path, error: BaseException) -> str:
    """Return `FILE, line N`: the last line of the user's file that the error came through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
