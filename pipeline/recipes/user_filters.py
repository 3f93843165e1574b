"""Load the filters of the user's own Python files, which the recipe names."""

import functools
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.base import FILTERS
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.recipes.user_code import Blame, UserFile, UserFiles


def load_user_filters(recipe: Recipe) -> None:
    """Make the filters of the recipe's Python files known, and those of other recipes' files unknown.

    A file whose content has not changed is not run again. Raises RecipeError with file and line.
    """
    FILES.load(recipe.filter.python)


def user_files(uses: Set[str]) -> list[tuple[str, str]]:
    """Return (name, sha256) of the loaded files that registered any of these filters, sorted."""
    return FILES.behind(set(uses))


def _check(file: UserFile, made: dict[str, Any]) -> None:
    """Check what a file registered and put a guard around its `keep`. Raises RecipeError."""
    path = file.path
    if not made:
        raise RecipeError(
            f'recipe: filter.python: {path} registers no filter; put @register("name") of filters.base over its class'
        )
    for use, found in made.items():
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
        with Blame(path, f"filter {use!r}", (KeyboardInterrupt, SystemExit, GeneratorExit)):
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


FILES = UserFiles("filter.python", FILTERS, _check)
