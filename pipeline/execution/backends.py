"""Where and how wide a step runs: the runners, and Beam's options for each."""

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.execution.environment import gpus
from pipeline.execution.job import Job

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

CLUSTERS = {"flink": "FlinkRunner", "spark": "SparkRunner", "dataflow": "DataflowRunner", "portable": "PortableRunner"}

PARALLELISM = re.compile(r"--(?:parallelism|max_parallelism|max_num_workers|num_workers)=(\d+)")
"""Beam's own options that say how many workers there may be at once."""
RUNNERS = ("local", "flink", "spark", "dataflow", "portable")


@dataclass(frozen=True)
class RunnerOptions:
    """Where and how wide a step runs. `stall_s`: seconds without a sign of life after which a worker counts as dead."""

    runner: str = "local"
    workers: int = 0
    beam_options: tuple[str, ...] = ()
    stall_s: float = 900.0

    @property
    def parallelism(self) -> int:
        """Return how many worker processes share what a step may take of others' servers, each taking its part; 0 where
        nobody says. On this machine it is one: they take from one budget (see Supervisor)."""
        if self.runner == "local":
            return 1
        said = [PARALLELISM.fullmatch(option) for option in self.beam_options]
        return self.workers or max((int(match[1]) for match in said if match), default=0)

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
