"""Holding a port, and ending."""

import os
import signal
import socket
import threading

import pytest

from pipeline.serving.limits import Limits
from pipeline.serving.server import Address, AddressError, serve, url_of
from pipeline.serving.wish import Reader
from tests.support.serving import EventStream, Server, Shades


def test_a_port_that_is_taken_is_said_before_anything_is_loaded():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(AddressError, match=f"127.0.0.1 port {port}: Address already in use; --port and --host"):
            serve(lambda: pytest.fail("loaded"), Address(port=port), Limits())


@pytest.mark.parametrize("host", ["no such host", "203.0.113.1"])
def test_an_address_of_another_machine_is_refused(host):
    with pytest.raises(AddressError, match=host):
        Address(host, 0).bind()


def test_the_url_of_an_ipv6_address_has_brackets():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        held = Address("::1", 0).bind()
    except AddressError:
        pytest.skip("no address ::1 here")
    with held:
        assert url_of(held) == f"http://[::1]:{held.getsockname()[1]}/"


def test_a_signal_ends_it_and_gives_the_handlers_back(capsys):
    before = signal.getsignal(signal.SIGTERM)

    def load():
        engine = Shades()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return engine, Reader(None, 100)

    try:
        with pytest.raises(KeyboardInterrupt):
            serve(load, Address(port=0), Limits())
    finally:
        signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr().err
    assert "serving shades of grey, no model" in said
    assert "at http://127.0.0.1:" in said
    assert "no password" not in said


def test_those_who_watch_are_told_when_it_ends():
    server = Server(Shades(slots=1, step_seconds=0.002, grid=64))
    names = [server.ask(), server.ask()]
    stream = EventStream(server, *names)
    told = iter(stream)
    next(told)
    server.close()
    ends = [data["reason"] for kind, data in told if kind == "cancelled"]
    stream.close()
    assert ends == ["the server was stopped"] * 2
