"""The folder of this machine for what runs in an object store need only while they work: files on their way to the
store, copies that are mapped, logs and spill."""

import contextlib
import getpass
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from manifests.layered_path import LayeredPath
from manifests.remote_path import RemotePath
from manifests.store_requests import StoreError

SCRATCH_FOLDER = "TESSERA_SCRATCH"
"""Environment variable that names it."""
UPLOAD, CACHE, LAYERS = "upload-", "cache", "layers"
"""Begin of the names of folders of files on their way; folder of copies that are mapped; in a run's folder those of its
working copies."""
CACHED_S = 86_400.0
WANTED = f"wanted a folder of one's own that can be written to: set {SCRATCH_FOLDER}"


def _named() -> Path:
    return Path(os.environ.get(SCRATCH_FOLDER) or Path(tempfile.gettempdir()) / f"tessera-{getpass.getuser()}")


def _called() -> str:
    """Return how messages call the folder."""
    return f"{SCRATCH_FOLDER} ({_named()})"


def base() -> Path:
    """Return the folder of this user's runs in stores. Raises StoreError where it is another's or cannot be made."""
    folder = _named()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StoreError(f"{_called()}: is no folder; {WANTED}") from error
    except OSError as error:
        raise StoreError(f"{_called()}: cannot be made ({error.strerror}); {WANTED}") from error
    if folder.stat().st_uid != os.getuid():
        raise StoreError(f"{_called()}: belongs to another user; {WANTED}")
    return folder


def check_scratch() -> None:
    """Write to the folder. Raises StoreError where that is not possible."""
    folder = base()
    try:
        with tempfile.NamedTemporaryFile(prefix=f"{UPLOAD}{os.getpid()}-", dir=folder) as file:
            file.write(b"probe")
    except OSError as error:
        raise StoreError(f"{_called()}: cannot be written to ({error.strerror}); {WANTED}") from error


def room_in(root: Path) -> str:
    """Return which disk it is that is full, for messages about a run: that of a run in a store is named."""
    return f" in {_called()}" if isinstance(root, RemotePath) else ""


def scratch_of_stored(root: RemotePath) -> Path:
    """Return the local folder of a run in a store; that of a working copy of it lies in it."""
    name = "".join(letter if letter.isalnum() else "-" for letter in root.name)[:40]
    above = scratch_of_stored(root.beneath) / LAYERS if isinstance(root, LayeredPath) else base()
    return above / f"{name}-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"


def sweep_scratch(root: RemotePath) -> None:
    """Drop what working copies of a run have left here, which nobody has while it is taken; and of all runs the files
    that processes which have ended had on their way, and copies that nobody asked for in CACHED_S."""
    shutil.rmtree(scratch_of_stored(root) / LAYERS, ignore_errors=True)
    for path in base().glob(f"{UPLOAD}*"):
        pid = path.name.removeprefix(UPLOAD).partition("-")[0]
        if pid.isdigit() and not _runs(int(pid)):
            _remove(path)
    for path in sorted((base() / CACHE).rglob("*"), reverse=True):  # what lies in a folder before the folder
        with contextlib.suppress(OSError):
            facts = path.lstat()
            if time.time() - max(facts.st_atime if not path.is_dir() else 0.0, facts.st_mtime) > CACHED_S:
                path.rmdir() if path.is_dir() else path.unlink()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def copy_of(path: RemotePath) -> Path:
    """Return where the copy of an object as it is now is kept, for all processes of this machine."""
    tag = hashlib.sha256(f"{path} {path.stat().tag}".encode()).hexdigest()[:32]
    return _copies(path.parent) / f"{tag}{path.suffix}"


def drop_copies(root: Path) -> None:
    """Drop the copies that this machine keeps of a run in a store: rows that went from the run may stand in them."""
    if isinstance(root, RemotePath):
        shutil.rmtree(_copies(root), ignore_errors=True)


def _copies(folder: Path) -> Path:
    """Return where copies of what lies below a folder of a store are kept: as deep, its names digests of any length."""
    return base().joinpath(CACHE, *(hashlib.sha256(part.encode()).hexdigest()[:16] for part in folder.parts))
