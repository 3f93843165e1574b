"""Send requests to an object store by fsspec's file systems: again, with pauses, where it throttles or fails."""

import errno
import os
import random
import stat
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

T = TypeVar("T")
TRIES = 7
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 20.0
"""A request is sent at most TRIES times; pauses between them double, half of each by chance."""
CODES = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Protocol -> the extra that installs what it needs."""
FINAL: tuple[type[Exception], ...] = (
    *(FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError),
    *(ValueError, TypeError, AttributeError, NotImplementedError, ImportError),
)
"""Errors that another try does not mend."""
ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
OF_OTHERS = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
"""Options for stores that speak Amazon's protocol and are not Amazon's: some refuse the headers of its checksums."""
CONDITION = "PreconditionFailed"
"""In the message of a store that has an object where none was to be."""
NO_RANGE = ("InvalidRange", "not satisfiable")
"""In the message of a store that is asked for a range of an empty object."""


class StoreError(RuntimeError):
    """A store cannot be used, or did not do what it was asked for, also not when asked again.

    No OSError: who asks for a file and hears that there is none, or that it is damaged, makes it anew.
    """


@dataclass(frozen=True)
class Facts:
    """What a store says of an object, or of a prefix: fields as in os.stat_result."""

    st_size: int
    st_mtime: float
    tag: str
    is_file: bool = True

    @property
    def st_mtime_ns(self) -> int:
        """Return the time of the last change in nanoseconds."""
        return int(self.st_mtime * 1e9)

    @property
    def st_mode(self) -> int:
        """Return the kind of file."""
        return stat.S_IFREG if self.is_file else stat.S_IFDIR

    @property
    def st_dev(self) -> int:
        """Return 0: what lies in stores is on no device."""
        return 0

    @property
    def st_ino(self) -> int:
        """Return a number that is another one once the object changed."""
        return int.from_bytes(self.tag.encode()[-16:], "big")


def facts_of(info: dict[str, Any]) -> Facts:
    """Return what an entry of a listing, or of `info`, says."""
    changed = next((info[name] for name in ("LastModified", "mtime", "updated", "created") if info.get(name)), 0)
    if isinstance(changed, str):
        changed = datetime.fromisoformat(changed)
    seconds = changed.timestamp() if isinstance(changed, datetime) else float(changed)
    size = int(info.get("size") or 0)
    tag = str(info.get("ETag") or info.get("etag") or info.get("md5Hash") or f"{size}-{seconds}").strip('"')
    return Facts(size, seconds, tag, info.get("type") != "directory")


def filesystem(protocol: str) -> Any:
    """Return fsspec's file system of a protocol, without a cache of listings. Raises StoreError where its package is
    missing."""
    import fsspec

    waits = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1}}
    options = client_options(protocol, waits)
    try:
        return fsspec.filesystem(protocol, **options)
    except (ImportError, ValueError) as error:
        extra = CODES.get(protocol)
        how = f"pip install 'tessera-t2i[{extra}]'" if extra else "install the package that fsspec names for it"
        raise StoreError(f"{protocol}://: cannot be opened ({error}); {how}") from error


def client_options(protocol: str, waits: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a protocol's file system. `waits`: of botocore's, how long and how often it tries."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if CODES.get(protocol) == "s3":
        others = any(os.environ.get(name) for name in ENDPOINTS)
        options["config_kwargs"] = {**waits, **(OF_OTHERS if others else {})}
    return options


def transient() -> tuple[type[BaseException], ...]:
    """Return what stores raise, of which some passes: OSError, and the classes of their clients that are loaded."""
    kinds: list[type[BaseException]] = [OSError, TimeoutError]
    for module, name in (
        ("botocore.exceptions", "BotoCoreError"),
        ("aiohttp", "ClientError"),
        ("asyncio", "TimeoutError"),
        ("botocore.exceptions", "ClientError"),
        ("gcsfs.retry", "HttpError"),
        ("fsspec.exceptions", "FSTimeoutError"),
    ):
        if module in sys.modules and hasattr(sys.modules[module], name):
            kinds.append(getattr(sys.modules[module], name))
    return tuple(kinds)


def tried(request: Callable[[], T], what: str) -> T:
    """Return what a request returns, sent again where it fails for a while.

    Raises what another try does not mend as it is, and StoreError for what failed to the end.
    """
    for number in range(1, TRIES + 1):
        try:
            return request()
        except PermissionError as error:
            raise StoreError(f"{what}: {error}") from error
        except FileNotFoundError as error:  # fsspec's have no number, and what has none is taken for damage
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), what) from error
        except FINAL:
            raise
        except transient() as error:
            if failed_condition(error):
                raise FileExistsError(errno.EEXIST, "is there already", what) from error
            if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
                raise StoreError(f"{what}: {error}") from error
            if number == TRIES:
                raise StoreError(f"{what}: {type(error).__name__}: {error} (tried {TRIES} times)") from error
            time.sleep(min(FIRST_PAUSE_S * 2 ** (number - 1), LONGEST_PAUSE_S) * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")


def failed_condition(error: BaseException | None) -> bool:
    """Tell whether a store refused a request since there is an object where none was to be (HTTP status 412)."""
    while error is not None:
        answer = getattr(error, "response", None)
        said = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
        if said == CONDITION or CONDITION in str(error) or str(getattr(error, "code", "")) == "412":
            return True
        error = error.__cause__ or error.__context__
    return False


def read_whole(files: Any, key: str) -> bytes:
    """Return the bytes of an object by one request: asked for without a start, s3fs asks for the size before."""
    try:
        return bytes(files.cat_file(key, start=0))
    except transient() as error:
        if not any(sign in str(error) for sign in NO_RANGE):
            raise
        return bytes(files.cat_file(key))
