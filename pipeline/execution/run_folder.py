"""Hold a run folder: its paths, its lock, and the input it belongs to."""

import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import tomli_w

from manifests.files import FormatError, read_field, sweep, write_bytes, write_json
from manifests.lineage import lost
from manifests.plans import settle_plans
from manifests.recipe_file import headed, read_headed
from manifests.remote_path import RemotePath
from manifests.scratch import sweep_scratch
from manifests.store import drop
from manifests.tombstones import TOMBSTONES, read_tombstones
from manifests.transaction import ASKED, finish
from manifests.working_copy import sweep_copies
from pipeline.execution.engine_jobs import settle_jobs
from pipeline.execution.lease import leased
from pipeline.execution.run_token import new_token
from pipeline.recipes.load import load_recipe, parse_recipe, set_over
from pipeline.recipes.schema import Recipe, RecipeError

RECIPE, COPY = "recipe.toml", "manifests/recipe.json"
"""The resolved recipe of a run, twice: for people, and to make it again from."""
SAID = ("logs/marks", "logs/signs")
"""Where workers on an engine say what they have in hand, and that they live (unit_marks.py, worker_signs.py): it counts
under their run's token alone."""


def write_recipe(recipe: Recipe) -> None:
    """Write both copies of the recipe into the run folder."""
    plain = recipe.plain()
    write_json(recipe.root / COPY, {"recipe": plain}, sealed=True)
    write_bytes(recipe.root / RECIPE, headed(tomli_w.dumps(plain).encode()))


def recipe_values(root: Path) -> dict[str, Any] | None:
    """Return the resolved recipe that the run folder holds, from whichever of its two copies is whole."""
    try:
        return read_headed(root / RECIPE)
    except (OSError, FormatError):
        pass
    try:
        return read_field(root / COPY, "recipe", dict)
    except (OSError, FormatError):
        return None


def recipe_of_run(root: Path, path: str | None = None, sets: Sequence[str] = ()) -> Recipe:
    """Return the recipe that a run folder holds, or the one named, with settings over it, for the folder where it lies
    now.

    Raises RecipeError.
    """
    if path:
        read = load_recipe(path, sets)
    else:
        values = recipe_values(root)
        if values is None:
            raise RecipeError(
                f"{root}: recipe.toml and its copy are damaged or missing; give the recipe (--recipe FILE)"
            )
        read = parse_recipe(set_over(values, sets))
    return read.model_copy(update={"output": read.output.model_copy(update={"root": str(root)})})


@contextlib.contextmanager
def locked(root: Path, *, removing: bool = False) -> Iterator[None]:
    """Hold the run folder for this process, under a new token, and sweep what dead attempts left in it.

    On a disk the system lets go of the lock when the process ends, however it ends; in an object store the lease of a
    process that has ended expires (lease.py). Raises RecipeError while another run holds it, and where a removal that
    was asked for is not at its end, unless this is the removal.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"output.root: cannot make the run folder {str(root)!r} ({error.strerror})") from error
    lock = leased(root) if isinstance(root, RemotePath) else _flocked(root)
    with lock, new_token(root):  # a token before anything is read: an earlier run's workers put nothing there any more
        settle_jobs(root)
        settle_plans(root)
        _sweep(root)
        if finish(root):
            print(f"{root}: finished a removal that was interrupted", file=sys.stderr)
        if (root / ASKED).exists() and not removing:
            raise RecipeError(
                f"{root}: a removal was asked for here and is not at its end; first: pipeline remove {root}"
            )
        yield


def _sweep(root: Path) -> None:
    """Drop what dead attempts left in a run: what workers on an engine said; in a store no half of a file, but working
    copies."""
    for said in SAID:
        drop(root / said)
    if isinstance(root, RemotePath):
        sweep_scratch(root)
        sweep_copies(root)
    else:
        sweep(root)


@contextlib.contextmanager
def _flocked(root: Path) -> Iterator[None]:
    """Hold a folder of a disk: the system lets go of it when the process ends, however that came."""
    with _open_lock(root) as file:
        _take(file, root)
        yield


def _open_lock(root: Path) -> IO[str]:
    try:
        return open(root / ".lock", "a+", encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"{root}: cannot be written to ({error.strerror}); a run folder is written to by every command but verify"
        ) from error


def _take(file: IO[str], root: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise RecipeError(
            f"{root}: held by another run ({holder}); wait for it, or use another output.root (--out DIR)"
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()


def need_removals(root: Path) -> None:
    """Raise RecipeError where tombstones or records of removals are missing or damaged: what was removed would come
    back."""
    try:
        read_tombstones(root)
    except (OSError, FormatError) as error:
        raise RecipeError(
            str(error) if isinstance(error, FormatError) else f"{root / TOMBSTONES}: cannot be read ({error})"
        ) from error
    if gone := lost(root):
        raise RecipeError(
            f"{root / gone[0]}: missing or damaged, and lineage would break off; restore it from a copy of the run"
        )
