"""Do one thing of a run in this process and say on the last line of stdout what it was: bench_scale.py starts this.

python benchmarks/scale_child.py FOLDER ACTION NAME WORKERS
"""

import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.execution.step import Runtime, Step, Unit, note_step
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.stages.registry import stage_steps

STAGES = ("filter", "pretokenize")


def steps_of(recipe: Recipe) -> Iterator[tuple[str, Step]]:
    """Yield (stage, step) of the measured stages in the order in which they run."""
    for stage in STAGES:
        for step in stage_steps(recipe, stage, Runtime()):
            yield stage, step


def spent() -> float:
    """Return the CPU seconds of this process and of the children that it has waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Child:
    """The actions, by name."""

    def __init__(self, folder: Path, name: str, workers: int) -> None:
        self.folder, self.name, self.workers = folder, name, workers

    @property
    def recipe(self) -> Recipe:
        return load_recipe(self.folder / "recipe.toml")

    @property
    def step(self) -> Step:
        return next(step for _, step in steps_of(self.recipe) if step.name == self.name)

    def prepare(self) -> dict[str, Any]:
        """Make the input and tie the run folder to it. NAME: rows,shard_rows,packed_rows."""
        from scale_folder import prepare

        from pipeline.execution.run_folder import write_recipe
        from pipeline.inputs.convert import with_tables
        from pipeline.inputs.files import look_at_inputs
        from pipeline.inputs.input_list import register_files

        prepare(self.folder, *map(int, self.name.split(",")))
        recipe = self.recipe
        register_files(recipe.root, with_tables(recipe, look_at_inputs(recipe)))
        write_recipe(recipe)
        return {}

    def steps(self) -> dict[str, Any]:
        """Name the steps in their order."""
        from scale_folder import FORGED

        return {
            "steps": [
                {"name": step.name, "stage": stage, "beam": step.beam, "forged": step.name in FORGED}
                for stage, step in steps_of(self.recipe)
            ]
        }

    def plan(self) -> dict[str, Any]:
        """Plan a step, with the derived steps that it plans from."""
        from pipeline.execution.forkserver import close

        step = self.step
        _make_needs(step, self.workers)
        units = len(step.units())
        close()
        return {"units": units}

    def unplan(self) -> dict[str, Any]:
        """Forget a step's plan, and what it was planned from."""
        step = self.step
        for derived in getattr(step, "needs", ()):
            _drop(derived(step.recipe, step.root))
        shutil.rmtree(step.root / "manifests" / "plan" / step.name, ignore_errors=True)
        return {}

    def order(self) -> dict[str, Any]:
        """Make the packed order, before t5 plans from it; forget it, before pack's plan, whose cost it is."""
        step = self.step
        if self.name == "pack":
            return self.unplan()
        for derived in getattr(step, "needs", ()):  # checkouts of before plan t5 without it
            _make_needs(step, self.workers)
            derived(step.recipe, step.root).packed()
        return {}

    def work(self) -> dict[str, Any]:
        """Do the units of a step that are not done; what planning took is told apart."""
        from pipeline.execution.backends import RunnerOptions
        from pipeline.execution.forkserver import close
        from pipeline.execution.progress import Progress
        from pipeline.execution.supervisor import do_units

        step = self.step
        _make_needs(step, self.workers)
        units = step.units()
        pending = [unit for unit in units if step.journal.done(unit.name, unit.key) is None]
        before = {"cpu_before": spent(), "wall_before": time.time()}
        if pending and hasattr(step, "bring"):  # checkouts of before have none
            from pipeline.execution.supervisor import do_within

            step.bring(pending, partial(do_within, options=RunnerOptions(workers=self.workers)))
        do_units(step, pending, RunnerOptions(workers=self.workers), Progress(step.name, len(units)))
        shutil.rmtree(step.root / ".shuffle" / step.name, ignore_errors=True)
        _end(step, units)
        before["wall_s"] = time.time() - before.pop("wall_before")
        close()
        return {**before, "units": len(pending), "worker_mib": _peak(resource.RUSAGE_CHILDREN)}

    def forge(self) -> dict[str, Any]:
        """Do the units of a step with made-up values."""
        from scale_folder import forge

        step = self.step
        units = step.units()
        made = forge(step, units)
        _end(step, units)
        return {"units": made}

    def undo(self) -> dict[str, Any]:
        """Forget that a step's units are done; their files stay and are written over."""
        _drop(self.step)
        return {}

    def manifest(self) -> dict[str, Any]:
        """Write a stage's manifest."""
        from pipeline.stages.manifest import write_manifest

        written = write_manifest(
            self.recipe, self.name, [step for at, step in steps_of(self.recipe) if at == self.name]
        )
        return {"units": len(written.shards)}

    def rows(self) -> dict[str, Any]:
        """Say how many rows each step read, and how many the run holds at each place."""
        from scale_folder import counts

        from manifests.journal import records_of

        root = self.recipe.root
        read = {
            step.name: sum(record.rows_in for record in records_of(root, step.name))
            for _, step in steps_of(self.recipe)
        }
        return {"counts": counts(root), "read": read}

    def targets(self) -> dict[str, Any]:
        """Name rows to ask for."""
        from scale_folder import targets

        return {"targets": list(targets(self.recipe.root))}


def _end(step: Step, units: list[Unit]) -> None:
    """Leave a step's journal as a run does; checkouts of before leave a JSON a shard."""
    step.journal.forget_others(unit.name for unit in units)
    if hasattr(step.journal, "compact"):
        step.journal.compact()
    note_step(step)


def _drop(step: Step) -> None:
    """Drop a step's journal."""
    shutil.rmtree(step.journal.folder, ignore_errors=True)
    for path in getattr(step.journal, "tables", ()):
        path.unlink(missing_ok=True)


def _make_needs(step: Step, workers: int) -> None:
    """Do the derived steps that a step plans from, as a stage does; checkouts of before have none."""
    if getattr(step, "needs", ()):
        from pipeline.execution import shuffle, supervisor
        from pipeline.execution.backends import RunnerOptions

        shuffle.make_needs(step, partial(supervisor.do_within, options=RunnerOptions(workers=workers)), grouped=False)


def _peak(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def main() -> None:
    """Do what the command line says."""
    folder, action, name, workers = sys.argv[1:]
    said = getattr(Child(Path(folder), name, int(workers)), action)()
    print("\n" + json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
