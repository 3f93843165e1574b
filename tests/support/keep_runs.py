"""Make a small whole run in the test's own process, without Beam: what tests of verify, repair and the like look at."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Runtime
from pipeline.maintenance.repair.run import Repair, RepairOptions, repair_run
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.stages.registry import STAGES
from pipeline.stages.run import StageOptions, run_stage
from tests.support.small_web import write_input, write_recipe


@contextlib.contextmanager
def without_beam() -> Iterator[None]:
    """Let every step do its units in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for steps in STAGES.values():
            for step in steps:
                patch.setattr(step, "beam", False)
        yield


def make_run(folder: Path, web: str, *stages: str) -> Path:
    """Run these stages (none: all) of the small recipe below `folder`; return the run folder."""
    recipe = write_recipe(folder / "recipe.toml", web, write_input(folder / "in"), folder / "run")
    with without_beam():
        for stage in stages or STAGES:
            run_stage(load_recipe(recipe), stage, StageOptions())
    return folder / "run"


def files_of(root: Path) -> list[Path]:
    """Return every file of a run that verify answers for, in order."""
    return sorted(p for p in root.rglob("*") if p.is_file() and p.relative_to(root).parts[0] not in ("logs", ".lock"))


def one_of_each_kind(root: Path) -> list[Path]:
    """Return one file of each folder and ending."""
    kinds: dict[tuple[Path, str], Path] = {}
    for path in files_of(root):
        kinds.setdefault((path.parent, path.suffix), path)
    return list(kinds.values())


def mend(root: Path, recipe: Recipe | None = None) -> Repair | None:
    """Repair a run in this process; return what was done, None where nothing was wrong."""
    with without_beam():
        return repair_run(root, recipe or recipe_of_run(root), Runtime(), RepairOptions())[1]


def differing(root: Path, other: Path) -> list[str]:
    """Return the paths of files that two runs do not have alike."""
    mine, theirs = (
        {path.relative_to(top).as_posix(): path.read_bytes() for path in files_of(top)} for top in (root, other)
    )
    return sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
