"""Hold a run folder in an object store: a lease that its owner renews, and that another process takes over once it has
expired.

`.lease/000007.json` says who holds the folder; the highest number counts, and it is created under the condition that it
is not there, so that of several processes one succeeds. An owner writes his own again every BEAT_S. A lease that was
not renewed for EXPIRY_S by the clock of the store, or whose owner is a process of this machine that is gone, is taken
over. One that was let go says so, and stays: numbers never begin anew.
"""

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from manifests.files import FORMAT, FormatError, json_text, read_json
from manifests.store import create
from manifests.store_requests import StoreError
from pipeline.execution.process_identity import Process, is_gone, this_process
from pipeline.recipes.schema import RecipeError

FOLDER = ".lease"
BEAT_S, EXPIRY_S = 15.0, 90.0


@dataclass(frozen=True)
class Lease:
    """The lease of a folder at one number."""

    path: Path
    owner: str
    process: Process | None
    released: bool

    @property
    def number(self) -> int:
        """Return its number."""
        return int(self.path.stem)


def _text(token: str, released: bool) -> bytes:
    process = this_process()
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    entry = {"owner": owner, "token": token, "released": released, "process": process.plain()}
    return json_text({"format": FORMAT, **entry})


def _is_number(text: str) -> bool:
    """Tell whether text is a lease's number: digits that `int` reads, which some that are called digits are not."""
    return text.isascii() and text.isdigit()


def latest(root: Path) -> Lease | None:
    """Return the lease that counts, None where the folder was never held."""
    paths = [path for path in (root / FOLDER).glob("*.json") if _is_number(path.stem)]
    for path in sorted(paths, key=lambda path: int(path.stem), reverse=True):
        try:
            entry = read_json(path)
        except FileNotFoundError:  # swept by who took it over
            continue
        except FormatError:
            return Lease(path, "unknown: its lease is damaged", None, False)
        process = Process.of(entry.get("process"))
        return Lease(path, str(entry.get("owner")), process, bool(entry.get("released")))
    return None


def age_of(lease: Lease) -> float:
    """Return seconds since a lease was renewed, by the clock of the store: that of an object written now."""
    probe = lease.path.with_name(f"now-{secrets.token_hex(6)}")
    probe.write_bytes(b"")
    try:
        return float(probe.stat().st_mtime - lease.path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0  # another one has just taken it over
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def leased(root: Path) -> Iterator[None]:
    """Hold a folder of a store while the block runs. Raises RecipeError while another process holds it."""
    mine = _take(root)
    keeper = Keeper(mine[0], mine[1])
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()


def _take(root: Path) -> tuple[Path, str]:
    last, token = latest(root), secrets.token_hex(8)
    if last is not None:
        _need_free(root, last)
    path = root / FOLDER / f"{(last.number if last else 0) + 1:06d}.json"
    if not create(path, _text(token, False)):
        now = latest(root)
        raise RecipeError(_held(root, now.owner if now else "another process", "it was quicker"))
    if create(path, _text(secrets.token_hex(8), False)):
        path.unlink(missing_ok=True)
        raise RecipeError(
            f"{root}: its store overwrites an object that was to be created only where there is none (If-None-Match: *"
            " is ignored), so that two runs could hold one folder; wanted a store that keeps this condition"
        )
    for old in (root / FOLDER).glob("*"):
        if not _is_number(old.stem) or int(old.stem) < int(path.stem):
            old.unlink(missing_ok=True)
    return path, token


def _need_free(root: Path, last: Lease) -> None:
    if last.released or (last.process is not None and is_gone(last.process)):
        return
    age = age_of(last)
    if age <= EXPIRY_S:
        raise RecipeError(
            _held(root, last.owner, f"its lease was renewed {age:.0f} s ago and expires {EXPIRY_S:.0f} s after that")
        )


def _held(root: Path, owner: str, why: str) -> str:
    return f"{root}: held by another run ({owner}; {why}); wait for it, or use another output.root (--out DIR)"


class Keeper(threading.Thread):
    """Renews a lease until it is stopped."""

    def __init__(self, path: Path, token: str) -> None:
        super().__init__(name="lease", daemon=True)
        self.path, self.token = path, token
        self.ended = threading.Event()

    def run(self) -> None:
        """Write the lease again and again; an outage of the store is waited out."""
        while not self.ended.wait(BEAT_S):
            try:
                self._renew(released=False)
            except (StoreError, OSError):
                continue

    def _renew(self, released: bool) -> None:
        if not self.ended.is_set() or released:
            self.path.write_bytes(_text(self.token, released))

    def stop(self) -> None:
        """Let the folder go; where the store does not hear of it, the lease expires."""
        self.ended.set()
        self.join()
        with suppress(StoreError):
            self._let_go()

    def _let_go(self) -> None:
        if latest_number(self.path.parent) == int(self.path.stem):
            self._renew(released=True)
        else:  # taken over: the run token has stopped this run's writers
            self.path.unlink(missing_ok=True)


def latest_number(folder: Path) -> int:
    """Return the highest number of a lease."""
    return max((int(path.stem) for path in folder.glob("*.json") if _is_number(path.stem)), default=0)
