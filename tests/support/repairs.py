"""Set up a repair of a run by hand: what a verify would have found, and the copy that files are made again in."""

import shutil
from pathlib import Path

from manifests.findings import Finding
from pipeline.execution.step import Runtime
from pipeline.maintenance.repair.session import Repair, RepairOptions
from tests.support.stage_steps import recipe_at


def repair_of(run: Path, *names: str, step: str = "") -> Repair:
    """Return the repair of a run in which these files of a step are damaged; the copy beside it lacks them."""
    copy = run.with_name("copy")
    shutil.copytree(run, copy)
    for name in names:
        (copy / name).unlink(missing_ok=True)
    shards = {name: name.rpartition("/")[2].partition(".")[0] for name in names}
    found = {name: Finding(name, "damaged", "?", step, shard) for name, shard in shards.items()}
    return Repair(run, copy, recipe_at(copy), Runtime(), RepairOptions(), found)
