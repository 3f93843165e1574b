"""A fetch that is killed while listed pictures come leaves no byte of them: not in the run, not in temporary files."""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.http_server import Handler, Server
from tests.support.killed_runs import kill_when
from tests.support.small_web import FETCHED, jpeg, picture, write_recipe

pytestmark = pytest.mark.slow

LISTED = jpeg(Image.fromarray(np.random.default_rng(1).integers(0, 256, (1200, 1200, 3), np.uint8)), quality=95)
"""A picture of more than a MiB: of other bodies so large a temporary file is made."""
PIECES = [LISTED[at : at + 64] for at in (5_000, len(LISTED) // 2, len(LISTED) - 5_000)]
RECIPE = FETCHED + "[filter]\nexclude = {{exclude}}\n[tier.pretrain]\nsize = 64\nrules = []\n"


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve /whole.jpg at once, /slow.jpg but for its last bytes, which never come, and sound pictures; `sent` is set
    once the first two lie in the client's hands."""
    stopping, sent = threading.Event(), threading.Event()

    class Slow(Handler):
        def do_GET(self):
            if not self.path.endswith(".jpg"):
                self.send_error(404)
                return
            if self.path != "/slow.jpg":
                self.answer(200, LISTED if self.path == "/whole.jpg" else jpeg(picture(1)))
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(LISTED)))
            self.end_headers()
            self.wfile.write(LISTED[:-1000])
            self.wfile.flush()
            sent.set()
            stopping.wait(120)

    server = Server(Slow)
    server.sent = sent
    yield server
    stopping.set()
    server.close()


def has_a_piece(path: str | Path) -> bool:
    try:
        data = Path(path).read_bytes()
    except OSError:
        return False
    return any(piece in data for piece in PIECES)


def open_with_a_piece(folder: Path) -> list[str]:
    """Return the files below a folder, those without a name too, that any process holds open and a piece stands in."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith(str(folder)) and has_a_piece(link):
            found.append(target)
    return found


@pytest.mark.parametrize("listed", [True, False])
def test_no_byte_is_left_and_none_was_on_disk(listed, server, tmp_path, monkeypatch):
    temporary = tmp_path / "tmp"
    for folder in (temporary, tmp_path / "in"):
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    names = ["whole.jpg", "slow.jpg", "1.jpg"]
    urls = [f"http://pictures.test/{name}" for name in names]
    pq.write_table(pa.table({"URL": urls, "TEXT": names}), tmp_path / "in" / "a.parquet")
    (tmp_path / "named.txt").write_text(f"md5\n{hashlib.md5(LISTED).hexdigest()}\n")
    recipe = write_recipe(tmp_path / "recipe.toml", server.address, tmp_path / "in", tmp_path / "run", RECIPE)
    exclude = f'["{tmp_path}/named.txt"]' if listed else "[]"
    recipe.write_text(recipe.read_text().replace("{exclude}", exclude))
    seen: list[str] = []

    def ready() -> bool:
        if not server.sent.wait(0.05):
            return False
        threading.Event().wait(1.5)  # what was sent is read by then
        seen.extend(open_with_a_piece(tmp_path))
        return True

    assert kill_when(ready, "run", "--stage", "filter", "--recipe", recipe, "--workers", 1)
    assert bool(seen) != listed  # without the list it lies in a temporary file, where this test sees it
    assert [path for path in tmp_path.rglob("*") if path.is_file() and has_a_piece(path)] == []
