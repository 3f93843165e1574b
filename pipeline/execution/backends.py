"""Where and how wide a step runs: the runners, and Beam's options for each."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.execution.environment import gpus
from pipeline.execution.job import Job

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

CLUSTERS = {"flink": "FlinkRunner", "spark": "SparkRunner", "dataflow": "DataflowRunner", "portable": "PortableRunner"}

RUNNERS = ("local", "flink", "spark", "dataflow", "portable")


@dataclass(frozen=True)
class RunnerOptions:
    """Where and how wide a step runs. `stall_s`: seconds without a sign of life after which a worker counts as dead."""

    runner: str = "local"
    workers: int = 0
    beam_options: tuple[str, ...] = ()
    stall_s: float = 900.0

    @property
    def processes(self) -> int:
        """Return the number of worker processes: as asked, else one per core (one per GPU where there are any)."""
        return self.workers or len(gpus()) or len(os.sched_getaffinity(0))


def pipeline_options(job: Job) -> "tuple[Any, PipelineOptions]":
    """Return (runner, options): FnApiRunner by name for `local`, since Beam's own default downloads a binary and runs
    it."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    if job.runner == "local":
        return FnApiRunner(), PipelineOptions(
            [*job.beam_options, "--direct_num_workers=1", "--direct_running_mode=in_memory"]
        )
    return None, PipelineOptions([f"--runner={CLUSTERS[job.runner]}", *job.beam_options])
