"""pipeline/execution/job_service.py: a job server is asked about jobs by the names that runs gave them."""

import pytest

from pipeline.execution.java import free_ports
from pipeline.execution.job_service import BeamJob, JobService, Unreachable
from tests.support.engines import FakeFlink, FakeJobServer


@pytest.fixture
def server():
    fake = FakeJobServer()
    yield fake
    fake.close()


def test_a_job_is_found_by_the_name_that_its_id_begins_with(server):
    server.jobs = {"tessera-a-11_x": "RUNNING", "tessera-a-1_y": "DONE"}
    service = JobService(server.endpoint)
    assert service.job("tessera-a-1") == BeamJob("tessera-a-1_y", "job", "DONE")
    assert [job.ended for job in service.jobs()] == [False, True]
    assert service.job("tessera-a") is None
    assert service.option_names() == {"object_reuse"}
    service.cancel("tessera-a-11_x")
    assert service.job("tessera-a-11").state == "CANCELLED"
    service.close()


def test_what_does_not_answer_as_a_job_server_is_unreachable_within_the_time(server):
    with pytest.raises(Unreachable, match=r"the job server at localhost:\d+: .*refused"):
        JobService(f"localhost:{free_ports(1)[0]}").jobs()
    flink = FakeFlink()
    with pytest.raises(Unreachable, match="the job server at"):
        JobService(flink.address.removeprefix("http://"), timeout_s=2.0).jobs()
    flink.close()
