"""Stand-ins for what a run hands its jobs to: a Beam job server, Flink's REST and a worker pool, without Java."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.portability.api import beam_job_api_pb2_grpc as api_grpc

from tests.support.http_server import Handler, Server


class FakeJobServer(api_grpc.JobServiceServicer):
    """Knows the jobs that it is given, id -> state, and says CANCELLED of those that it is asked to cancel."""

    def __init__(self, options: tuple[str, ...] = ("object_reuse",), obeys: bool = True) -> None:
        self.jobs: dict[str, str] = {}
        self.names, self.obeys = options, obeys
        self.cancelled: list[str] = []
        self.server = grpc.server(ThreadPoolExecutor(4))
        api_grpc.add_JobServiceServicer_to_server(self, self.server)
        self.endpoint = f"localhost:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def GetJobs(self, request, context):
        return api.GetJobsResponse(
            job_info=[
                api.JobInfo(job_id=job, job_name="job", state=api.JobState.Enum.Value(state))
                for job, state in self.jobs.items()
            ]
        )

    def DescribePipelineOptions(self, request, context):
        options = [api.PipelineOptionDescriptor(name=name) for name in self.names]
        return api.DescribePipelineOptionsResponse(options=options)

    def Cancel(self, request, context):
        self.cancelled.append(request.job_id)
        if self.obeys:
            self.jobs[request.job_id] = "CANCELLED"
        return api.CancelJobResponse(state=api.JobState.CANCELLED)

    def close(self) -> None:
        self.server.stop(None).wait()


@dataclass
class FakeFlink:
    """Flink's REST: jobs, name -> [state, tasks], and slots."""

    taskmanagers: int = 1
    slots: int = 2
    free: int = 2
    jobs: dict[str, tuple[str, dict[str, int]]] = field(default_factory=dict)
    cause: str = ""
    cancelled: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        fake = self

        class Rest(Handler):
            def do_GET(self) -> None:
                said = fake.say(self.path)
                self.answer(200 if said is not None else 404, json.dumps(said or {"errors": ["no"]}).encode())

            def do_PATCH(self) -> None:
                name = self.path.removeprefix("/jobs/id-").removesuffix("?mode=cancel")
                with fake.lock:
                    fake.cancelled.append(name)
                    fake.jobs[name] = ("CANCELED", {})
                self.answer(202, b"{}")

        self.server = Server(Rest)
        self.address = f"http://{self.server.address}"

    def say(self, path: str) -> object:
        with self.lock:
            if path == "/overview":
                has = {"taskmanagers": self.taskmanagers, "slots-total": self.slots, "slots-available": self.free}
                return {**has, "flink-version": "1.19.0"}
            if path == "/jobs/overview":
                listed = [{"jid": f"id-{name}", "name": name, "state": state} for name, (state, _) in self.jobs.items()]
                return {"jobs": listed}
            name = path.removeprefix("/jobs/id-").partition("/")[0]
            if name not in self.jobs:
                return None
            return {"root-exception": self.cause} if "/exc" in path else {"vertices": [{"tasks": self.jobs[name][1]}]}

    def close(self) -> None:
        self.server.close()
