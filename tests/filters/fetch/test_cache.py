"""What is remembered of hosts, and what goes first when it is too old, too much or too large."""

import pytest

from filters.fetch.cache import Cache


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("filters.fetch.cache.time.monotonic", lambda: now[0])
    return now


def test_a_cache_forgets_the_old_the_many_and_the_large(clock: list[float]) -> None:
    cache: Cache[str] = Cache(3, size=100)
    for name in "abcd":
        cache.put(name, name, 10)
    assert [cache.get(name) for name in "abcd"] == [None, "b", "c", "d"]
    cache.put("large", "large", 10, size=99)
    assert [cache.get(name) for name in ("b", "d", "large")] == [None, "d", "large"]
    clock[0] = 10
    assert cache.get("large") is None
    assert cache.held == 1


def test_each_entry_has_its_own_time(clock: list[float]) -> None:
    cache: Cache[str] = Cache(9)
    cache.put("short", "s", 1)
    cache.put("long", "l", 5)
    clock[0] = 0.99
    assert (cache.get("short"), cache.get("long")) == ("s", "l")
    clock[0] = 1.0
    assert (cache.get("short"), cache.get("long")) == (None, "l")
    cache.put("long", "anew", 5)
    clock[0] = 5.5
    assert cache.get("long") == "anew"
    assert cache.get("never put") is None


def test_what_was_used_last_goes_last(clock: list[float]) -> None:
    cache: Cache[int] = Cache(2)
    cache.put("a", 1, 9)
    cache.put("b", 2, 9)
    assert cache.get("a") == 1
    cache.put("c", 3, 9)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]


def test_weights_are_added_up_once_for_each_key(clock: list[float]) -> None:
    """40 + 50 fit into 100; a value put again weighs anew: 50 + 60 do not."""
    cache: Cache[str] = Cache(9, size=100)
    cache.put("a", "a", 9, size=40)
    cache.put("b", "b", 9, size=50)
    assert cache.held == 90
    cache.put("a", "heavier", 9, size=60)
    assert (cache.get("a"), cache.get("b"), cache.held) == ("heavier", None, 60)


def test_one_that_is_too_large_alone_is_kept_until_the_next(clock: list[float]) -> None:
    cache: Cache[str] = Cache(9, size=10)
    cache.put("huge", "huge", 9, size=1000)
    assert cache.get("huge") == "huge"
    cache.put("small", "small", 9)
    assert (cache.get("huge"), cache.get("small"), cache.held) == (None, "small", 1)


def test_nothing_is_a_value_too(clock: list[float]) -> None:
    cache: Cache[list[int]] = Cache(1)
    cache.put("empty", [], 9)
    assert cache.get("empty") == []
