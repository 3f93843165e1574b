"""Try the addresses that [runner] names, all at once and for seconds: whether they are ones, answer, and speak gRPC."""

import re
import threading
from collections.abc import Callable, Sequence

from pipeline.execution.java import answers
from pipeline.recipes.schema import RecipeError

PORT_S = 3.0
"""Seconds for a connection to an address."""
READY_S = 4.0
"""Seconds for what has taken a connection to begin gRPC: a server of it does so by itself, however busy its Python."""
ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})")
LAST_PORT = 65_535


def is_address(text: str) -> bool:
    """Tell whether a text is HOST:PORT."""
    match = ADDRESS.fullmatch(text)
    return match is not None and 0 < int(match[1]) <= LAST_PORT


def need_pools(pools: Sequence[str], key: str) -> None:
    """Raise RecipeError, which names the key, where an address is none, nobody answers at it, or no gRPC server."""
    for address in pools:
        if not is_address(address):
            raise RecipeError(
                f"{key}: got {address!r}, wanted HOST:PORT of a worker pool, such as localhost:50000; start one beside"
                " each of the engine's processes: python -m pipeline.execution.pool --port 50000"
            )
    for address in _without(answering, pools):
        raise RecipeError(
            f"{key}: no worker pool answers at {address}; start one beside each of the engine's processes:"
            f" python -m pipeline.execution.pool --port {address.rpartition(':')[2]}"
        )
    for address in _without(speaks_grpc, pools):
        raise RecipeError(no_pool(address, key))


def no_pool(address: str, key: str = "runner.pools") -> str:
    """Say that something else than a worker pool has an address."""
    return (
        f"{key}: what answers at {address} is no worker pool; give the HOST:PORT of one, or start it at a free port:"
        " python -m pipeline.execution.pool --port N"
    )


def need_spark(master: str) -> None:
    """Raise RecipeError where no master of spark://HOST:PORT[,HOST:PORT] answers; one of them may stand by."""
    addresses = master.removeprefix("spark://").split(",")
    if len(_without(answering, addresses)) == len(addresses):
        raise RecipeError(
            f"runner.master: no Spark master answers at {master}; start it, give its URL as the top of its page says"
            " it, or leave runner.master out for a Spark inside the job server: see docs/cluster.md"
        )


def answering(address: str) -> bool:
    """Tell whether somebody listens at HOST:PORT."""
    return answers(address, PORT_S)


def speaks_grpc(address: str) -> bool:
    """Tell whether a gRPC server begins to talk at HOST:PORT; one of HTTP, and one that is silent, do not."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(READY_S)
        except grpc.FutureTimeoutError:
            return False
    return True


def _without(holds: Callable[[str], bool], addresses: Sequence[str]) -> list[str]:
    """Return the addresses for which something does not hold, asked of all at once."""
    found: dict[str, bool] = {}

    def ask(address: str) -> None:
        found[address] = holds(address)

    threads = [threading.Thread(target=ask, args=(address,), daemon=True) for address in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [address for address in addresses if not found.get(address)]
