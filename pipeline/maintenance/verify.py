"""Verify a run folder or a bare folder of shards: records, bytes, what removals left."""

from pathlib import Path

from manifests.verify import Report, is_run, verify_run
from manifests.verify_shards import is_bare, verify_folder
from pipeline.execution.progress import ShownWatch
from pipeline.maintenance.verify_index import with_bare_indexes, with_run_indexes
from pipeline.maintenance.verify_removed import with_absence
from pipeline.maintenance.verify_samples import with_samples
from pipeline.recipes.schema import RecipeError
from pipeline.stages.registry import STAGES


def look(root: Path, jobs: int, quiet: bool = False, samples: bool = False) -> Report:
    """Verify a run folder or a bare folder of shards; `samples`: look into each too. Raises RecipeError for a folder
    that is neither."""
    if not root.is_dir():
        raise RecipeError(
            f"{str(root)!r}: no such folder; wanted a run folder or a folder of shards with their indexes"
        )
    watch = ShownWatch(quiet)
    if is_run(root):
        report = verify_run(
            root, {stage: tuple(step.name for step in steps) for stage, steps in STAGES.items()}, jobs, watch
        )
        report = with_run_indexes(root, with_absence(root, report, jobs), samples)
    elif is_bare(root):
        report = with_bare_indexes(root, verify_folder(root, jobs, watch))
    else:
        raise RecipeError(
            f"{str(root)!r}: neither a run folder (no manifests/) nor a folder of shards (no .tar, no .index.json)"
        )
    watch.show(last=True)
    return with_samples(root, report, jobs) if samples else report
