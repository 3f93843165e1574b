"""Generated pictures, a small web on 127.0.0.1, and an input table with one row per kind of trouble."""

import gc
import os
import shutil
import sys

import pytest

from tests.support.http_server import Handler, Server
from tests.support.small_web import Web, jpeg, picture

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads spin against each other when test processes share cores
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as in the Makefile: some sixty processes import the same packages
sys.dont_write_bytecode = False


def pytest_make_parametrize_id(val, argname):
    """Name bytes of a case by their parameter: gzip's hold the time of their making."""
    return argname if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()) else None


def pytest_collection_finish():
    """Take all test modules and what they imported out of the garbage collector's way: a fourteenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["disk", "memory"])
def anywhere(request, tmp_path):
    """Return a folder of a disk, then one of an object store, in memory."""
    from tests.support.object_store import in_memory

    return tmp_path if request.param == "disk" else in_memory()


@pytest.fixture(scope="session")
def web():
    """Serve pictures on 127.0.0.1: /N.jpg, /small.jpg, /page.jpg, /twin.jpg; anything else is 404. Yields host:port."""
    pages = {f"/{n}.jpg": jpeg(picture(n)) for n in range(40)}
    pages |= {
        "/small.jpg": jpeg(picture(100, 20, 20)),
        "/page.jpg": b"<html>sorry</html>",
        "/twin.jpg": jpeg(picture(3), quality=60),
    }

    hits: list[str] = []

    class Asked(Handler):
        def do_GET(self):
            hits.append(self.path)
            body = pages.get(self.path)
            self.answer(200 if body else 404, body or b"")

    server = Server(Asked)
    address = Web(server.address)
    address.hits, address.pages = hits, pages
    yield address
    server.close()


@pytest.fixture(scope="session")
def made(tmp_path_factory, web):
    """Return a whole run of the small recipe, all three stages, which no test may change."""
    from tests.support.keep_runs import make_run

    return make_run(tmp_path_factory.mktemp("made"), web)


@pytest.fixture(scope="session")
def stored(made):
    """Return a copy of the whole run in an object store in this process's memory, which no test may change."""
    from tests.support.stored_runs import memory_root, upload

    return upload(made, memory_root())


@pytest.fixture
def run(made, tmp_path):
    """Return a copy of the whole run, to be changed."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def _without(made, folder, *numbers):
    from tests.support.removals import URL, remove

    shutil.copytree(made, folder)
    remove(folder, url=[URL.format(number) for number in numbers])
    return folder


@pytest.fixture(scope="session")
def removed(made, tmp_path_factory):
    """Return the whole run after http://pictures.test/5.jpg was removed from it, which no test may change."""
    return _without(made, tmp_path_factory.mktemp("removed") / "run", 5)


@pytest.fixture
def removed_run(removed, tmp_path):
    """Return a copy of the run that a URL was removed from, to be changed."""
    shutil.copytree(removed, tmp_path / "removed")
    return tmp_path / "removed"


@pytest.fixture(scope="session")
def removed_two(made, tmp_path_factory):
    """Return the whole run after two URLs, 5.jpg and 3.jpg, were removed from it at once, which no test may change."""
    return _without(made, tmp_path_factory.mktemp("removed_two") / "run", 5, 3)


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory):
    """Return the folder of a T5 encoder of width 32, which no test may change."""
    from tests.support.tiny_t5 import letter_t5

    return letter_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def one_thread():
    """Let torch run in one thread, as in a worker: threads that wait for each other on a busy machine are slower."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_demo(monkeypatch):
    """Let GPT-demo have 2 layers of width 96, as tests.support.small_training has it in a process of its own."""
    from pipeline.gpt_spec import SIZES
    from tests.support.small_training import SMALL

    monkeypatch.setitem(SIZES, "GPT-demo", SMALL)
