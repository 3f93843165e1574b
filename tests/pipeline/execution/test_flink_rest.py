"""pipeline/execution/flink_rest.py: Flink's REST is asked about slots and jobs."""

import pytest

from pipeline.execution.flink_rest import Cluster, FlinkJob, FlinkRest
from pipeline.execution.java import free_ports
from pipeline.execution.job_service import Unreachable
from tests.support.engines import FakeFlink, FakeJobServer


@pytest.fixture
def flink():
    fake = FakeFlink(taskmanagers=3, slots=6, free=4)
    yield fake
    fake.close()


def test_slots_and_jobs(flink):
    rest = FlinkRest(flink.address)
    flink.jobs = {"a": ("RUNNING", {"RUNNING": 0, "SCHEDULED": 3}), "b": ("FINISHED", {})}
    flink.cause = "java.lang.Exception: no"
    assert rest.cluster() == Cluster(3, 6, 4, "1.19.0")
    assert rest.job("a") == FlinkJob("id-a", "a", "RUNNING", {"RUNNING": 0, "SCHEDULED": 3})
    assert rest.job("a").waits_for_slots
    assert not FlinkJob("id", "a", "RUNNING", {"RUNNING": 1, "CREATED": 1}).waits_for_slots
    assert rest.job("b").ended
    assert rest.job("c") is None
    assert rest.why("id-a") == "java.lang.Exception: no"
    rest.cancel("id-a")
    assert (flink.cancelled, rest.job("a").ended) == (["a"], True)


def test_what_is_no_flink_is_unreachable(flink):
    with pytest.raises(Unreachable, match=r"Flink's REST at http://localhost:\d+: .*refused"):
        FlinkRest(f"http://localhost:{free_ports(1)[0]}").cluster()
    with pytest.raises(Unreachable, match="Flink's REST at"):
        FlinkRest(flink.address).why("id-none")
    server = FakeJobServer()
    with pytest.raises(Unreachable, match="Flink's REST at"):
        FlinkRest(f"http://{server.endpoint}", timeout_s=2.0).cluster()
    server.close()


def test_another_page_is_no_flink(flink, monkeypatch):
    monkeypatch.setattr(flink, "say", lambda path: {"hello": "there"})
    with pytest.raises(Unreachable, match="no Flink REST answers there"):
        FlinkRest(flink.address).cluster()
    monkeypatch.setattr(flink, "say", lambda path: ["hello"])
    with pytest.raises(Unreachable, match="no Flink REST answers there"):
        FlinkRest(flink.address).cluster()
