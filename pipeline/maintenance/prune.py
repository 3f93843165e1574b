"""Say what fell out of a run's plans and is kept aside, and let it go where that is wanted."""

import os
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from manifests.aside import ASIDE, UNDER_WAY, groups, steps_aside
from manifests.files import TEMPORARY
from manifests.store import drop, is_remote
from pipeline.execution.run_folder import locked
from pipeline.recipes.schema import RecipeError
from pipeline.stages.registry import STAGES


@dataclass(frozen=True)
class Kept:
    """What is aside of one step: rows, files with their records, and bytes on disk."""

    step: str
    rows: int
    files: int
    bytes: int


def set_aside_in(root: Path, place: str = ASIDE) -> list[Kept]:
    """Return what lies aside of each step, in the order of the chain; UNDER_WAY: what an interrupted step still
    needs."""
    order = [step.name for steps in STAGES.values() for step in steps]
    found = []
    for step in sorted(steps_aside(root, place), key=lambda name: (order.index(name) if name in order else 99, name)):
        sizes = [size for path in sorted((root / place / step).rglob("*")) if (size := _size(path)) is not None]
        rows = sum(group.rows for group in groups(root, place, step))
        found.append(Kept(step, rows, len(sizes), sum(sizes)))
    return found


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except FileNotFoundError:  # a run that is at work has taken it meanwhile
        return None


def prune(root: Path, steps: Collection[str]) -> list[Kept]:
    """Let go of what lies aside of these steps (none: of all); return what that was.

    A step's folder is renamed, then its files go: a kill leaves a temporary name, which the next start sweeps. In a
    store, where no folder is renamed, records go before the files that they name: a kill leaves what nobody uses.
    Raises RecipeError for a step that has nothing aside, and while another run holds the folder.
    """
    with locked(root):
        there = set_aside_in(root)
        unknown = sorted(set(steps) - {kept.step for kept in there})
        if unknown:
            names = ", ".join(kept.step for kept in there) or "none"
            raise RecipeError(f"--step {unknown[0]!r}: nothing of it is set aside; steps with something: {names}")
        gone = [kept for kept in there if not steps or kept.step in steps]
        for kept in gone:
            _let_go(root, root / ASIDE / kept.step)
        if (root / ASIDE).is_dir() and not any((root / ASIDE).iterdir()):
            (root / ASIDE).rmdir()
    return gone


def _let_go(root: Path, folder: Path) -> None:
    if is_remote(folder):
        for record in folder.glob("*.json"):
            record.unlink(missing_ok=True)
    else:
        doomed = root / f"{TEMPORARY}prune-{os.getpid()}-{secrets.token_hex(4)}"
        os.rename(folder, doomed)
        folder = doomed
    drop(folder)


def under_way(root: Path) -> list[Kept]:
    """Return what a step that was interrupted has set aside: the next run takes it up, and prune leaves it."""
    return set_aside_in(root, UNDER_WAY)
