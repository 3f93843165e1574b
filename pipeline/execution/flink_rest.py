"""Ask Flink's REST about its slots and jobs, and cancel a job: each call ends within seconds."""

import http.client
import json
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline.execution.job_service import Unreachable

TIMEOUT_S = 5.0
MOST_BYTES = 50_000_000
ENDED = ("FINISHED", "FAILED", "CANCELED", "SUSPENDED")
NOT_BEGUN = ("CREATED", "SCHEDULED", "RECONCILING")


@dataclass(frozen=True)
class Cluster:
    """What a Flink cluster has: processes, slots in all, and free ones."""

    taskmanagers: int
    slots: int
    free: int
    version: str


@dataclass(frozen=True)
class FlinkJob:
    """A job as Flink knows it. `tasks`: state -> tasks in it, for a job that was looked at alone."""

    id: str
    name: str
    state: str
    tasks: dict[str, int] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Tell whether nothing more comes of it."""
        return self.state in ENDED

    @property
    def waits_for_slots(self) -> bool:
        """Tell whether tasks wait for slots that nobody gives."""
        return any(self.tasks.get(state, 0) for state in NOT_BEGUN) and not self.tasks.get("RUNNING", 0)


@dataclass(frozen=True)
class FlinkRest:
    """Flink's REST at an address such as http://localhost:8081. Every call raises Unreachable where it does not
    answer."""

    address: str
    timeout_s: float = TIMEOUT_S

    def cluster(self) -> Cluster:
        """Return what the cluster has."""
        said = self._ask("/overview")
        try:
            return Cluster(
                int(said["taskmanagers"]),
                int(said["slots-total"]),
                int(said["slots-available"]),
                str(said["flink-version"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Unreachable(f"{self.address}: no Flink REST answers there ({error!r})") from error

    def jobs(self) -> list[FlinkJob]:
        """Return all jobs that it knows, without their tasks."""
        said = self._ask("/jobs/overview").get("jobs", [])
        return [FlinkJob(str(job["jid"]), str(job["name"]), str(job["state"])) for job in said]

    def job(self, name: str) -> FlinkJob | None:
        """Return a job with its tasks by the name that a run gave it."""
        found = next((job for job in self.jobs() if job.name == name), None)
        if found is None or found.ended:
            return found
        tasks: Counter[str] = Counter()
        for vertex in self._ask(f"/jobs/{found.id}").get("vertices", []):
            tasks.update({str(state): int(count) for state, count in vertex.get("tasks", {}).items()})
        return FlinkJob(found.id, found.name, found.state, dict(tasks))

    def why(self, job: str) -> str:
        """Return the cause that a job failed for, as Flink tells it; nothing where it tells none."""
        said = self._ask(f"/jobs/{job}/exceptions")
        return str(said.get("root-exception") or "")

    def cancel(self, job: str) -> None:
        """Ask it to cancel a job by its id; that takes its time."""
        self._ask(f"/jobs/{job}?mode=cancel", "PATCH")

    def _ask(self, path: str, method: str = "GET") -> dict[str, Any]:
        request = urllib.request.Request(self.address.rstrip("/") + path, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=self.timeout_s) as answer:
                said = json.loads(answer.read(MOST_BYTES) or b"{}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise Unreachable(f"Flink's REST at {self.address}: {reason}") from error
        if not isinstance(said, dict):
            raise Unreachable(f"{self.address}: no Flink REST answers there")
        return said
