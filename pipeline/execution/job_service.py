"""Ask a Beam job server about jobs, and cancel them: each call ends within seconds."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

TIMEOUT_S = 5.0
ENDED = ("DONE", "FAILED", "CANCELLED", "DRAINED", "UPDATED", "STOPPED")


class Unreachable(Exception):
    """A job server or an engine does not answer, or not as one of its kind; the message is one clause."""


@dataclass(frozen=True)
class BeamJob:
    """A job as the job server knows it."""

    id: str
    name: str
    state: str

    @property
    def ended(self) -> bool:
        """Tell whether nothing more comes of it."""
        return self.state in ENDED


@dataclass
class JobService:
    """The job server at an endpoint, HOST:PORT. Every call raises Unreachable where it does not answer."""

    endpoint: str
    timeout_s: float = TIMEOUT_S

    def jobs(self) -> list[BeamJob]:
        """Return all jobs that it knows."""
        api, _ = _messages()
        answer = self._ask(self._stub.GetJobs, api.GetJobsRequest())
        return [BeamJob(job.job_id, job.job_name, api.JobState.Enum.Name(job.state)) for job in answer.job_info]

    def job(self, name: str) -> BeamJob | None:
        """Return the job of a name that a run gave it: the id begins with that, whatever the server calls it."""
        return next((job for job in self.jobs() if job.id.startswith(f"{name}_") or job.name == name), None)

    def option_names(self) -> set[str]:
        """Return the names of the options that its engine takes."""
        api, _ = _messages()
        answer = self._ask(self._stub.DescribePipelineOptions, api.DescribePipelineOptionsRequest())
        return {option.name for option in answer.options}

    def cancel(self, job: str) -> None:
        """Ask it to cancel a job by its id; that takes its time."""
        api, _ = _messages()
        self._ask(self._stub.Cancel, api.CancelJobRequest(job_id=job))

    def close(self) -> None:
        """Let go of the connection."""
        if "_channel" in self.__dict__:
            self._channel.close()
            del self.__dict__["_channel"], self.__dict__["_stub"]

    @cached_property
    def _channel(self) -> Any:
        import grpc

        return grpc.insecure_channel(self.endpoint)

    @cached_property
    def _stub(self) -> Any:
        _, services = _messages()
        return services.JobServiceStub(self._channel)

    def _ask(self, call: Callable[..., Any], request: Any) -> Any:
        import grpc

        try:
            return call(request, timeout=self.timeout_s)
        except grpc.RpcError as error:
            said = " ".join(str(error.details() or error.code()).split())[:300]
            raise Unreachable(f"the job server at {self.endpoint}: {said}") from error


def _messages() -> tuple[Any, Any]:
    """Return Beam's messages and services for job servers; without its warnings of packages that nobody needs here."""
    logging.disable(logging.WARNING)
    try:
        from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
    finally:
        logging.disable(logging.NOTSET)
    return beam_job_api_pb2, beam_job_api_pb2_grpc
