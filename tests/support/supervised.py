"""Run the steps of tests/support/steps.py in supervised workers, or under a fork server that starts none."""

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.execution.backends import RunnerOptions
from pipeline.execution.job import Job, error_path
from pipeline.execution.progress import Progress
from pipeline.execution.supervisor import Supervisor
from pipeline.recipes.load import parse_recipe

RECIPE = parse_recipe({"tier": {"a": {"size": 64}}})


def run(step, **options):
    units = step.units()
    supervisor = Supervisor(step, RunnerOptions(**options), Progress(step.name, len(units)))
    supervisor.run([unit for unit in units if step.journal.done(unit.name, unit.key) is None])
    return supervisor


@dataclass
class FakeWorker:
    """A process that has ended with this code, or never does (None)."""

    job: Job
    code: int | None
    stopped: int = 0
    pid: int | None = None

    def poll(self) -> int | None:
        return self.code

    def wait(self, seconds: float | None = None) -> int | None:
        return self.code

    def stop(self) -> None:
        self.stopped += 1


class FakeServer:
    """A fork server that starts nothing.

    `endings` says how the n-th worker ends: an exit code, None for never, (exit code, message) left in its error file,
    ("row", n) for a kill with row n in hand, or what its start raises.
    """

    def __init__(self, endings: list[object]) -> None:
        self.endings, self.workers = endings, []

    def start(self, job: Path, log: Path, environment: dict[str, str]) -> FakeWorker:
        ending = self.endings[len(self.workers)]
        if isinstance(ending, BaseException):
            raise ending
        job = Job.read(job)
        match ending:
            case ("row", n):
                held = {"unit": "00000", "uids": [n.to_bytes(16, "big").hex()]}
                Path(job.in_flight).write_text(json.dumps(held))
                ending = -9
            case (code, message):
                error_path(job.in_flight).write_text(f"{code}\n{message}")
                ending = code
        self.workers.append(FakeWorker(job, ending))
        return self.workers[-1]
