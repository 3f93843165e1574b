"""Do units as a cluster's runner is handed them, on Beam's local one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.execution.job import Job
from pipeline.execution.shuffle import Derived
from pipeline.execution.worker import run


@contextmanager
def as_on_a_cluster() -> Iterator[None]:
    """Let jobs of another runner than the local one run in this process, and no step be small enough for the driver."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.execution.worker.pipeline_options", lambda job: (FnApiRunner(), PipelineOptions([])))
        patch.setattr(Derived, "is_small", lambda step, pending: False)
        yield


def on_beam(step, units):
    """Do units of a step; one whose end a shuffle is, in one pipeline with its legs."""
    kind = f"{type(step).__module__}:{type(step).__qualname__}"
    run(Job(kind, str(step.root), step.recipe.plain(), [asdict(unit) for unit in units], "", runner="flink"))
