"""pipeline/execution/engine_causes.py: why a job failed, from texts that engines wrote."""

import pytest

from pipeline.execution.engine_causes import Cause, cause_of

IN_WORKER = """RuntimeError: Pipeline tessera-a_1 failed in state FAILED: java.lang.RuntimeException: Error received \
from SDK harness for instruction 5: Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1501, in process
pipeline.recipes.schema.RecipeError: filter.python: no such file
During handling of the above exception, another exception occurred:
Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1588, in process
{last} [while running 'step']
"""


@pytest.mark.parametrize("kind", ["RecipeError", "WeightsError", "CaptionerError", "RunOver"])
def test_what_a_worker_of_ours_refuses_is_its_own_message(kind):
    text = IN_WORKER.format(last=f"pipeline.recipes.schema.{kind}: weights of x: got 1, wanted 2")
    assert cause_of(text) == Cause("weights of x: got 1, wanted 2", kind, known=True)


def test_an_error_of_a_worker_is_its_last_line():
    text = IN_WORKER.replace("RecipeError: filter.python", "Other: x").format(last="RuntimeError: a decoder fell over")
    assert cause_of(text) == Cause("RuntimeError: a decoder fell over")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('java.io.IOException: Cannot run program "docker": error=2', "Docker is not there"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock", "Docker is not there"),
        ("OSError: [Errno 28] No space left on device", "make room"),
        ("NoResourceAvailableException: Could not acquire the minimum required resources.", "no free slot"),
        ("java.util.concurrent.TimeoutException: Heartbeat of TaskManager with id a:1-2 timed out.", "TaskManager was"),
        ("TaskManager with id a:1-2 is no longer reachable.", "a TaskManager was lost"),
        (
            "RuntimeError: Pipeline p failed in state FAILED: org.apache.beam.vendor.grpc.v1p60p1.io.grpc."
            "StatusRuntimeException: CANCELLED: client cancelled",
            "a worker process ended",
        ),
        (
            "grpc._channel._MultiThreadedRendezvous: <_MultiThreadedRendezvous of RPC that terminated with:\n"
            '\tstatus = StatusCode.UNAVAILABLE\n\tdetails = "Socket closed"\n>',
            "the job server went away",
        ),
        ("ValueError: Pipeline has validations errors:\nMissing required option: region.", "ValueError: Pipeline has"),
        (
            "RuntimeError: Pipeline p failed in state FAILED: java.lang.IllegalStateException: odd\n\tat a.b.C(D.java)",
            "java.lang.IllegalStateException: odd",
        ),
        (
            "Exception in thread main java.lang.Exception: a\nCaused by: java.io.IOException: b\n",
            "java.io.IOException: b",
        ),
        ("", "it did not say why"),
    ],
)
def test_what_engines_say_is_put_into_a_clause(text, says):
    assert says in cause_of(text).says


def test_a_long_cause_is_cut():
    assert len(cause_of(f"ValueError: {'x' * 2000}").says) == 401
