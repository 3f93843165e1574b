"""Names: looked up once, remembered whatever came of it, and judged by the guard each time."""

import asyncio
import socket
import threading
from collections import Counter

import pytest

from filters.fetch import dns
from filters.fetch.cache import Cache
from filters.fetch.guard import BlockedAddress, Guard


def test_a_name_is_looked_up_once_and_remembered_whatever_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[str] = Counter()
    table = {"many.example": ["127.0.0.1", "127.0.0.2"], "inside.example": ["10.0.0.1"]}

    def look_up(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked[host] += 1
        threading.Event().wait(0.05)
        if host not in table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in table[host]]

    async def run() -> None:
        resolver = dns.Resolver(Guard.of(["127.0.0.2/32"]), 4, names)
        found = await asyncio.gather(*[resolver.resolve("many.example", port) for port in (80, 81, 443)])
        assert [[(each["host"], each["port"]) for each in one] for one in found] == [
            [("127.0.0.2", port)] for port in (80, 81, 443)
        ]
        for _ in range(3):
            with pytest.raises(OSError, match="not known"):
                await resolver.resolve("gone.example", 80)
            with pytest.raises(BlockedAddress):
                await resolver.resolve("inside.example", 80)
        await resolver.close()

    monkeypatch.setattr(dns.socket, "getaddrinfo", look_up)
    names = Cache[dns.Found | OSError](9)
    asyncio.run(run())
    asyncio.run(run())  # the memory outlives a loop; the guard looks each time
    assert asked == {"many.example": 1, "gone.example": 1, "inside.example": 1}


INET = (socket.AF_INET, socket.SOCK_STREAM, 6, "")


def resolved(monkeypatch: pytest.MonkeyPatch, look_up, work, known=None):  # type: ignore[no-untyped-def]
    """Run `work(resolver)` in a loop, with `look_up` in place of the system's resolver."""

    async def run():  # type: ignore[no-untyped-def]
        resolver = dns.Resolver(Guard.of(["127.0.0.0/8"]), 2, known)
        try:
            return await work(resolver)
        finally:
            await resolver.close()

    monkeypatch.setattr(dns.socket, "getaddrinfo", look_up)
    return asyncio.run(run())


def test_names_under_invalid_are_never_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("invalid", "a.invalid", "b.INVALID"):
        with pytest.raises(OSError, match="RFC 6761"):
            resolved(monkeypatch, lambda *_, **__: pytest.fail("was asked for"), lambda r, host=host: r.resolve(host))


def test_a_name_of_either_case_is_one_name_and_families_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def look_up(host, port, family, *_, **__):  # type: ignore[no-untyped-def]
        asked.append((host, family))
        return [(*INET, ("127.0.0.1", port))]

    async def work(resolver: dns.Resolver) -> None:
        for host in ("A.example", "a.EXAMPLE"):
            await resolver.resolve(host, 80)
        await resolver.resolve("a.example", 80, socket.AF_INET)

    resolved(monkeypatch, look_up, work)
    assert asked == [("A.example", socket.AF_UNSPEC), ("a.example", socket.AF_INET)]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no such name"), 60),
        (socket.gaierror(socket.EAI_NODATA, "no address"), 60),
        (socket.gaierror(socket.EAI_AGAIN, "no answer"), 5),  # its own servers did not answer: it may exist
        (UnicodeError("label too long"), 60),
        (None, 60),  # an answer without an address
    ],
)
def test_how_long_a_failure_is_remembered(monkeypatch, error, seconds) -> None:  # type: ignore[no-untyped-def]
    def look_up(*_, **__):  # type: ignore[no-untyped-def]
        if error is not None:
            raise error
        return [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "path")]

    now = [0.0]
    monkeypatch.setattr("filters.fetch.cache.time.monotonic", lambda: now[0])
    known = Cache[dns.Found | OSError](9)
    with pytest.raises(OSError, match=r"no|not a name"):
        resolved(monkeypatch, look_up, lambda resolver: resolver.resolve("x.example"), known)
    now[0] = seconds - 0.01
    assert isinstance(known.get(("x.example", int(socket.AF_UNSPEC))), OSError)
    now[0] = seconds
    assert known.get(("x.example", int(socket.AF_UNSPEC))) is None


def test_one_that_gives_up_leaves_the_look_up_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    go, asked = threading.Event(), []

    def look_up(host, port, *_, **__):  # type: ignore[no-untyped-def]
        asked.append(host)
        assert go.wait(10)
        return [(*INET, ("127.0.0.1", port))]

    async def work(resolver: dns.Resolver) -> str:
        first, second = (asyncio.create_task(resolver.resolve("slow.example", 80)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()
        return (await second)[0]["host"]

    assert resolved(monkeypatch, look_up, work) == "127.0.0.1"
    assert asked == ["slow.example"]
