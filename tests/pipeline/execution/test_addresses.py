"""pipeline/execution/addresses.py: what an address is, who answers at it, and whether that is a pool."""

import http.server
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from pipeline.execution import addresses
from pipeline.execution.addresses import is_address, need_pools, need_spark
from pipeline.execution.java import free_ports
from pipeline.recipes.schema import RecipeError


@pytest.fixture
def silent():
    """The address of a socket that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listens:
        yield f"127.0.0.1:{listens.getsockname()[1]}"


@pytest.fixture
def page():
    """The address of an HTTP server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def speaks():
    """The address of a gRPC server."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def closed():
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.mark.parametrize("text", ["a:1", "127.0.0.1:50000", "[::1]:5", "far.test:65535"])
def test_an_address(text):
    assert is_address(text)


@pytest.mark.parametrize("text", ["abc", "a:", ":5", "a:0", "a:65536", "a:b", "http://a:5", "a:5/", "::1:5", "a b:5"])
def test_what_is_no_address_is_told_what_one_is(text):
    assert not is_address(text)
    with pytest.raises(RecipeError) as error:
        need_pools([text], "runner.pools")
    assert str(error.value).startswith(f"runner.pools: got {text!r}, wanted HOST:PORT of a worker pool")
    assert f"--port {text}" not in str(error.value)


def test_what_is_no_pool_is_told_of(silent, page, speaks, monkeypatch):
    monkeypatch.setattr(addresses, "READY_S", 1.0)
    for address in (silent, page):
        with pytest.raises(RecipeError, match=f"runner.pools: what answers at {address} is no worker pool; give"):
            need_pools([address, page, silent], "runner.pools")
    monkeypatch.setattr(addresses, "READY_S", 120.0)
    need_pools([speaks], "runner.pools")


def test_nobody_at_one_of_several(speaks):
    nowhere = closed()
    with pytest.raises(RecipeError, match=f"runner.environment_config: no worker pool answers at {nowhere}; start"):
        need_pools([speaks, nowhere], "runner.environment_config")


def test_a_spark_of_which_one_master_answers(silent):
    need_spark(f"spark://{closed()},{silent}")
    nowhere = f"spark://{closed()},{closed()}"
    with pytest.raises(RecipeError, match=f"runner.master: no Spark master answers at {nowhere}; start it"):
        need_spark(nowhere)
