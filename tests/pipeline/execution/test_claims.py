"""pipeline/execution/claims.py: a unit is taken by one worker, and by another only when that one has died."""

import multiprocessing

import pytest

from pipeline.execution.claims import Claims
from pipeline.execution.step import Unit

UNITS = [Unit(f"{number:05d}", {"first": number}, "content", "key") for number in (3, 0, 2, 1)]


@pytest.fixture
def claims(tmp_path):
    claims = Claims(tmp_path / "counting.claims")
    claims.open(UNITS)
    return claims


def test_each_unit_goes_to_the_worker_that_comes_first_in_the_order_given(claims):
    one, two = claims.taken(0), claims.taken(1)
    assert [next(one), next(two), next(one)] == UNITS[:3]
    assert not claims.is_claimed(UNITS[3].name)  # nothing is claimed ahead
    assert list(two) == UNITS[3:]
    assert list(one) == list(claims.taken(2)) == []


def test_what_a_dead_worker_had_is_taken_over(claims):
    one, two = claims.taken(0), claims.taken(1)
    had = [next(one), next(two), next(one)]
    claims.free(0)
    assert [claims.is_claimed(unit.name) for unit in had] == [False, True, False]
    assert list(claims.taken(0)) == [had[0], had[2], UNITS[3]]


def test_a_worker_killed_as_it_wrote_its_claim_holds_nothing(claims):
    (claims.folder / "00003.claim").write_bytes(b"")
    assert [unit.name for unit in claims.taken(11)] == ["00000", "00002", "00001"]
    claims.free(1)  # not 11's
    assert list(claims.taken(1)) == UNITS[:1]


def test_a_folder_is_laid_down_anew_and_goes_whole(claims):
    list(claims.taken(0))
    claims.open(UNITS[:1])
    assert list(claims.taken(0)) == UNITS[:1]
    claims.close()
    claims.close()
    assert not claims.folder.exists()


def names(claims, number):
    return [unit.name for unit in claims.taken(number)]


def test_of_processes_at_once_one_has_each_unit(claims):
    claims.open([Unit(f"{number:05d}", {}, "", "") for number in range(300)])
    with multiprocessing.get_context("fork").Pool(4) as pool:
        had = pool.starmap(names, [(claims, number) for number in range(4)])
    assert sorted(name for some in had for name in some) == [f"{number:05d}" for number in range(300)]


def test_whoever_claims_is_told_of_the_deaths_that_were_noted_last(tmp_path):
    claims = Claims(tmp_path / "step.claims")
    claims.open([])
    assert claims.deaths() == {}
    claims.note_deaths({"aa": 1})
    claims.note_deaths({"aa": 2, "shard 00001": 1})
    assert Claims(tmp_path / "step.claims").deaths() == {"aa": 2, "shard 00001": 1}
    claims.close()
    assert claims.deaths() == {}
