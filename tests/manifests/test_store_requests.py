"""Requests that fail for a while are sent again; what another try does not mend is said at once."""

import pytest

from manifests import store_requests
from manifests.store_requests import StoreError, facts_of, failed_condition, filesystem, tried


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(store_requests, "FIRST_PAUSE_S", 0.001)


def answers(*given):
    """Return a request that raises these errors, or returns these values, in turn, and a list of its calls."""
    left, calls = list(given), []

    def request():
        calls.append(1)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return request, calls


def test_faults_that_pass():
    request, calls = answers(OSError("503"), TimeoutError(), ConnectionResetError(), 7)
    assert tried(request, "s3://b") == 7
    assert len(calls) == 4


def test_faults_that_do_not_pass_end_in_one_error_that_is_no_missing_file():
    request, calls = answers(*[OSError("500")] * 9)
    with pytest.raises(StoreError, match=r"s3://b: OSError: 500 \(tried 7 times\)") as caught:
        tried(request, "s3://b")
    assert len(calls) == 7
    assert not isinstance(caught.value, OSError)


@pytest.mark.parametrize("error", [FileNotFoundError(), FileExistsError(), ValueError()])
def test_what_another_try_does_not_mend_is_asked_once(error):
    request, calls = answers(error)
    with pytest.raises(type(error)):
        tried(request, "s3://b")
    assert len(calls) == 1


def test_no_permission_is_no_missing_file():
    request, calls = answers(PermissionError("Forbidden"))
    with pytest.raises(StoreError, match="Forbidden"):
        tried(request, "s3://b")
    assert len(calls) == 1


def test_facts_of_an_object_and_of_a_prefix():
    facts = facts_of({"size": 3, "ETag": '"ab"', "LastModified": "2026-01-01T00:00:00+00:00", "type": "file"})
    assert (facts.st_size, facts.tag, facts.is_file, facts.st_mtime) == (3, "ab", True, 1767225600.0)
    assert not facts_of({"type": "directory", "size": 0}).is_file
    assert facts.st_ino != facts_of({"size": 3, "ETag": '"ac"'}).st_ino


def test_a_package_that_is_missing_is_one_sentence():
    with pytest.raises(StoreError, match=r"nosuch://.*cannot be opened"):
        filesystem("nosuch")


class Refused(OSError):
    """What a client raises of an answer."""

    def __init__(self, text, code):
        super().__init__(22, text)
        self.response = {"Error": {"Code": code}}


def test_an_object_where_none_was_to_be_is_known_by_the_code_of_the_answer():
    def request():
        try:
            raise Refused("At least one of the preconditions", "PreconditionFailed")
        except Refused as error:
            raise OSError(22, "At least one of the preconditions") from error

    with pytest.raises(FileExistsError):
        tried(request, "s3://b")
    assert not failed_condition(Refused("a", "SlowDown"))
    assert failed_condition(OSError("PreconditionFailed"))
