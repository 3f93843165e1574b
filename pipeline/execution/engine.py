"""What a run off this machine's own runner begins with: paths that workers see, a job server, and Beam's options."""

import os
from dataclasses import replace
from pathlib import Path

from manifests.store import scratch_of
from pipeline.execution.backends import EMBEDDED, IN_JOB_SERVER, Backend, RunnerOptions
from pipeline.execution.beam_flags import check_flags
from pipeline.execution.engine_jobs import notes
from pipeline.execution.java import job_server
from pipeline.recipes.schema import Recipe, RecipeError

LOG = "job-server.log"


def seen_by_workers(recipe: Recipe, options: RunnerOptions) -> Recipe:
    """Return the recipe with paths that workers can follow, whatever folder they work in: absolute ones.

    Raises RecipeError for what the runner is not told, and for a relative run folder where workers are on other
    machines, whose current folder is another: an absolute one may be a shared one, a relative one is a mistake.
    """
    backend = options.backend
    if options.runner == "local":
        if options.beam_options:
            check_flags(options.beam_options)
        return recipe
    backend.check()
    root = recipe.output.root
    if _is_relative(root) and not backend.is_here:
        raise RecipeError(
            f"output.root: {root!r} is a path in the current folder, and workers on other machines have another; give"
            " one that all of them see: an absolute path on a shared disk (--out /shared/run), or a store (--out"
            " s3://bucket/run)"
        )
    files = recipe.input.files
    seen = [_absolute(name) for name in files] if isinstance(files, list) else _absolute(files)
    return recipe.model_copy(
        update={
            "output": recipe.output.model_copy(update={"root": _absolute(root)}),
            "input": recipe.input.model_copy(update={"files": seen}),
        }
    )


def with_width(options: RunnerOptions, root: Path) -> RunnerOptions:
    """Return options that say how many units are done at once: as asked, else Flink's free slots, else this machine's
    cores for an engine inside a job server of our own; as they are where nobody here can know.

    Steps share other people's servers by it, so it is asked for before they are planned. What an earlier run left in
    the slots is ended when the folder is taken: where there is a note of that, all slots count. Raises RecipeError
    where Flink does not answer or has no slot.
    """
    if options.runner == "local" or options.parallelism or options.backend.config.parallelism:
        return options
    backend = options.backend
    width = 0
    if backend.rest:
        from pipeline.execution.preflight import check_slots, look_at_cluster

        cluster = look_at_cluster(backend)
        width = cluster.slots if any(notes(root)) else cluster.free
        if not width:
            check_slots(backend, cluster)
    elif backend.server() is not None and backend.config.master in IN_JOB_SERVER:
        width = len(os.sched_getaffinity(0))
    return replace(options, config=options.config.model_copy(update={"parallelism": width}))


def _is_relative(path: str) -> bool:
    return "://" not in path and not os.path.isabs(path)


def _absolute(path: str) -> str:
    return os.path.abspath(path) if _is_relative(path) else path


def endpoint_of(backend: Backend, root: Path) -> str:
    """Return where jobs are handed over: the endpoint that was given, or that of a job server of our own."""
    command = backend.server()
    if command:
        return job_server(command, scratch_of(root) / "logs" / LOG).endpoint
    return getattr(backend.config, "job_endpoint", "") or EMBEDDED


_tried: set[tuple[Backend, Path]] = set()


def try_engine(options: RunnerOptions, root: Path) -> list[str]:
    """Look once in an invocation whether the runner can work for this run folder; return what is worth telling.

    Raises RecipeError or RunFailed with the cause and the remedy.
    """
    backend = options.backend
    if options.runner == "local" or (backend, root) in _tried:
        return []
    from pipeline.execution.preflight import look_at_engine, look_before  # Beam's half of it is for engines alone

    look_before(backend)
    notes = look_at_engine(backend, endpoint_of(backend, root), root)
    _tried.add((backend, root))
    return notes
