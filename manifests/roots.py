"""Say in one sentence, before any work and within seconds, why a run folder cannot be where it was said to be."""

import contextlib
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from manifests.extras import how_to_get
from manifests.files import TEMPORARY
from manifests.remote_path import RemotePath, is_url
from manifests.scratch import check_scratch
from manifests.store import path_of
from manifests.store_requests import CODES, StoreError, client_options

DEADLINE_S = 10.0
"""A store that has not answered by then is said not to."""
AGAIN_S, PAUSE_S = 5.0, 0.3
"""A store that throttles or fails is asked again for so long, with so much between."""
PACKAGES = {"s3": "s3fs", "gcs": "gcsfs"}
"""Extra -> the package that fsspec needs."""
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws in AWS_PROFILE",
    "gcs": "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or log in: gcloud auth application-default login",
}
ENDPOINTS = {
    "s3": "; AWS_ENDPOINT_URL says where the store is, if it is not Amazon's",
    "gcs": f"; where it knows of no credentials: {CREDENTIALS['gcs']}",
}
"""What else may be wrong where none is reached: Google's client looks for credentials on the network at length."""
WANTED = "wanted a folder, or s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"
PROBE = f"{TEMPORARY}probe"
LOCAL = ("file", "local")
WORDS = {*LOCAL, *("box", "cached", "data", "dir", "generic", "git", "reference", "root", "tar", "zip")}
"""Names of protocols that a folder "NAME:1" may begin with."""
READ_ONLY = ("http", "https", "ftp")
"""Protocols that list nothing, or take nothing."""
UNREACHED = ("EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError", "ConnectionRefusedError")
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound")


class RootError(ValueError):
    """A run folder cannot be where it was said to be; the message says why, and what to do."""


def root_of(text: str) -> Path:
    """Return the path of a run folder's name or URL. Raises RootError for what can be none, and for what is meant as a
    URL and is none."""
    protocol, colon, _ = text.partition("://")
    if colon and protocol.lower() in READ_ONLY:
        raise RootError(f"{text!r}: {protocol.lower()}:// cannot hold a run; {WANTED}")
    return place_of(text)


def place_of(text: str) -> Path:
    """Return the path of any file's or folder's name or URL. Raises RootError for what is meant as a URL and is none:
    as the name of a folder it would make one called "s3:"."""
    head, colon, rest = text.partition(":/")
    if head.lower() in LOCAL and colon:
        raise RootError(f"{text!r}: wanted a folder of this machine by its path alone: /{rest.lstrip('/')}")
    if is_url(text):
        try:
            return path_of(text)
        except ValueError as error:
            raise RootError(str(error)) from error
    if "://" in text or _is_meant_as_url(text):
        raise RootError(f"{text!r}: neither a folder nor a URL; {WANTED}")
    path = path_of(text)
    return path.absolute() if _is_meant_as_url(str(path)) else path  # ./s3:x, whose name alone would be refused


def _is_meant_as_url(text: str) -> bool:
    """Tell whether text begins with a protocol and a colon, though not with two slashes."""
    name, colon, rest = text.partition(":")
    if not colon or not re.fullmatch(r"\w+", name) or (name.lower() in WORDS and not rest.startswith("/")):
        return False
    from fsspec.registry import known_implementations

    return name.lower() in known_implementations


def check_root(root: Path, *, writes: bool = True) -> None:
    """Ask the store of a run folder whether it can be listed and, where the command `writes`, written to, and this
    machine for the local folder that it needs meanwhile; of a folder on a disk nothing is asked.

    What is written is an object that is deleted at once. Raises RootError: no package for the protocol, no such
    protocol, no local folder, no credentials, no bucket, nobody at the address, no permission, no answer within
    DEADLINE_S.
    """
    if not isinstance(root, RemotePath):
        return
    try:
        check_scratch()
    except StoreError as error:
        raise RootError(str(error)) from error
    ended: list[BaseException | None] = []

    def ask() -> None:
        try:
            files = _filesystem(root)
            _asked_again(lambda: _ask(files, root, writes))
            ended.append(None)
        except Exception as error:  # whatever a store's client raises is said in a sentence, by the thread that waits
            ended.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(DEADLINE_S)
    if not ended:
        raise RootError(f"{root}: the store has not answered within {DEADLINE_S:g} s{_endpoint(root)}")
    if isinstance(ended[0], RootError):
        raise ended[0]
    if ended[0] is not None:
        raise RootError(f"{root}: {_says(root, ended[0], writes)}") from ended[0]


def _ask(files: Any, root: RemotePath, writes: bool) -> None:
    key = str(files._strip_protocol(str(root)))
    try:
        files.ls(key, detail=False)
    except FileNotFoundError as error:
        if "bucket does not exist" in str(error):
            raise
    if writes:
        files.pipe_file(f"{key}/{PROBE}", b"probe")
        with contextlib.suppress(FileNotFoundError):  # another command has asked at the same time
            files.rm_file(f"{key}/{PROBE}")


def _asked_again(ask: Callable[[], None]) -> None:
    """Ask, and again for AGAIN_S where the store fails in a way that passes."""
    started = time.monotonic()
    while True:
        try:
            return ask()
        except (FileNotFoundError, PermissionError, ValueError, TypeError, NotImplementedError):
            raise
        except Exception as error:
            if _names(error) & {*NO_CREDENTIALS, *UNREACHED} or time.monotonic() - started > AGAIN_S:
                raise
        time.sleep(PAUSE_S)


def _filesystem(root: RemotePath) -> Any:
    """Return fsspec's file system of a protocol, which gives up soon. Raises RootError where there is none."""
    import fsspec

    extra = CODES.get(root.protocol)
    waits = {"connect_timeout": 3, "read_timeout": 5, "retries": {"total_max_attempts": 1}}
    try:
        files = fsspec.filesystem(root.protocol, **client_options(root.protocol, waits), skip_instance_cache=True)
    except ImportError as error:
        if extra is None:
            raise RootError(f"{root}: {error} (fsspec); {WANTED}") from error
        raise RootError(
            f"{root}: the package {PACKAGES[extra]!r} is not installed. Get it with: {how_to_get(extra)}"
        ) from error
    except ValueError as error:
        raise RootError(f"{root}: no store is known by the name {root.protocol}://; {WANTED}") from error
    if hasattr(files, "retries"):
        files.retries = 1
    return files


def _names(error: BaseException) -> set[str]:
    """Return the class names of an exception and of those that it came from: clients are not imported to look at
    them."""
    found: set[str] = set()
    at: BaseException | None = error
    while at is not None:
        found |= {kind.__name__ for kind in type(at).__mro__}
        at = at.__cause__ or at.__context__
    return found


def _says(root: RemotePath, error: BaseException, writes: bool) -> str:
    """Return what is wrong, and what to do, in words."""
    extra, names = CODES.get(root.protocol, ""), _names(error)
    said = " ".join(str(error).split())[:300]
    if names & {*NO_CREDENTIALS, "DefaultCredentialsError"}:
        return f"no credentials ({said}); {CREDENTIALS.get(extra, 'see the store')}"
    if isinstance(error, FileNotFoundError):
        return f"no bucket {root.parts[1]!r} ({said}); make it, or name another{_endpoint(root)}"
    if isinstance(error, PermissionError):
        may = "be listed and written to" if writes else "be listed"
        return f"the store does not let it {may} with these credentials ({said})"
    if names & {*UNREACHED}:
        return f"the store cannot be reached ({said}){_endpoint(root)}"
    if isinstance(error, NotImplementedError | ValueError | TypeError):
        return f"cannot be {'written to' if writes else 'listed'} ({said or type(error).__name__}); {WANTED}"
    return f"the store fails ({type(error).__name__}: {said}){_endpoint(root)}"


def _endpoint(root: RemotePath) -> str:
    return ENDPOINTS.get(CODES.get(root.protocol, ""), "")
