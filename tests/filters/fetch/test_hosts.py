"""filters/fetch/hosts.py: turns of one host, its rests, and when it counts as down."""

import pytest

from filters.fetch.config import FetchConfig
from filters.fetch.hosts import FetchTask, Host, Site
from filters.fetch.messages import Request

CONFIG = FetchConfig(breaker_faults=3, breaker_rest_s=5, deadline_s=20, host_connections=4)


def host(config: FetchConfig = CONFIG, **known: object) -> Host:
    return Host(config, "a.example", Site(config, "a.example"), met=True, **known)  # type: ignore[arg-type]


def job() -> FetchTask:
    return FetchTask(Request(b"uid", "u"), "u", "u", 1.0, 0)


def test_a_host_that_never_answered_is_down_at_the_breakers_faults() -> None:
    found = host()
    for number in range(3):
        assert not found.down
        found.failed(100.0 + number, 100.0 + number)
    assert (found.down, found.rest_until) == (True, 0.0)


def test_a_host_that_costs_three_deadlines_is_down_before() -> None:
    """Four timeouts at once count as one deadline, and three one after the other as three."""
    found = host(FetchConfig(breaker_faults=1000, deadline_s=20))
    for ended in (120.0, 140.0):
        for _ in range(4):
            found.failed(ended, ended - 20)
        assert (found.down, found.lost_s) == (False, ended - 100)
    found.failed(160.0, 140.0)
    assert (found.down, found.lost_s) == (True, 60.0)


def test_a_host_that_answered_but_never_well_rests_once_first() -> None:
    found = host(answered=True)
    for now in (100.0, 101.0, 102.0):
        found.failed(now, now)
    assert (found.down, found.rest_until, found.openings) == (False, 107.0, 1)
    found.failed(103.0, 102.0)  # of a request from before the rest
    assert not found.down
    found.failed(108.0, 107.0)
    assert found.down


@pytest.mark.parametrize("faults", [3, 30])
def test_a_host_that_was_well_once_is_never_down(faults: int) -> None:
    found = host()
    found.fine()
    for number in range(faults):
        found.failed(100.0 + 1000 * number, 100.0 + 1000 * number)
    assert (found.down, found.limit()) == (False, 2 if found.spent else 1)


def test_a_host_that_only_leads_on_to_itself_is_down_after_three_deadlines_and_a_rest() -> None:
    """`led_on` is of a redirect to another host: it takes back what faults cost, but counts for no picture."""
    found = host(FetchConfig(breaker_faults=1000, deadline_s=20, breaker_rest_s=5), answered=True)
    found.failed(120.0, 100.0)
    found.led_on()
    assert (found.lost_s, found.faults, found.well) == (0.0, 0, False)
    for now in (140.0, 160.0, 180.0):
        assert found.rest_until == 0.0
        found.failed(now, now - 20)
    assert (found.down, found.rest_until) == (False, 185.0)
    found.failed(205.0, 185.0)
    assert found.down


def test_a_site_of_which_no_host_answered_is_down_after_three_deadlines_of_all_its_hosts() -> None:
    config = FetchConfig(deadline_s=20)
    silent, mixed = Site(config, "a.example"), Site(config, "b.example", answered=True)
    for site in (silent, mixed):
        hosts = [Host(config, f"img{number}", site, met=True) for number in range(24)]
        for number, one in enumerate(hosts):
            assert not site.down
            ended = 120.0 + 20 * (number // 8)
            one.failed(ended, ended - 20)
            if number == 16:
                break
    assert (silent.lost_s, silent.down, mixed.down) == (60.0, True, False)


def test_a_turn_notes_when_it_was_taken_and_keeps_the_crawl_delay() -> None:
    found = host(delay_s=2.0)
    found.waiting.extend([job(), job()])
    first = found.take(100.0)
    assert (first.taken_at, found.began, found.next_at, found.active) == (100.0, 100.0, 102.0, 1)
    assert found.ready_at() == 102.0
    assert found.take(103.0).taken_at == 103.0
    assert (found.began, found.ready_at()) == (100.0, None)


def test_the_first_host_of_a_site_is_the_one_whose_number_holds() -> None:
    site = Site(CONFIG, "example", next_at=50.0)
    early, late = host(entry=7), host(entry=9)
    site.hosts += [(1.0, 0, 3, early), (40.0, 0, 7, early), (45.0, 1, 9, late)]
    assert site.first() is early
    assert site.ready_at() == 50.0
    early.entry = 8
    assert (site.first(), site.ready_at()) == (late, 50.0)
    site.active = 4
    assert site.ready_at() is None


def test_jitter_depends_on_the_row_and_the_attempt_alone() -> None:
    job = FetchTask(Request(b"uid", "u"), "u", "u", 1.0, 0)
    first = job.jitter()
    job.attempts = 1
    assert 0 <= first < 1
    assert job.jitter() != first == FetchTask(Request(b"uid", "u"), "u", "u", 9.0, 5).jitter()
