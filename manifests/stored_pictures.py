"""Open the stored pictures of these uids in `pairs/*.tar`, by the tars' headers: nothing else is read."""

import os
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path
from tarfile import BLOCKSIZE

from manifests.files import FormatError, read_parquet
from manifests.shards import Sample, ShardError, check_end, member_places
from manifests.store import is_remote, local_copy

PICTURE = ("jpg",)
"""Extension of the picture; `txt` and `json` stand beside it."""


def stored_pictures(
    tar: Path, keys: Collection[str] | None = None, parts: Collection[str] = PICTURE
) -> Iterator[tuple[str, Sample]]:
    """Yield (key, sample) of a shard of pairs in the tar's order: the key is the uid in hex, the sample holds `parts`.

    With `keys`, only of these pairs; a key that the tar lacks is no error, and a pair that lacks a part comes without
    it. Raises ShardError for a tar that is cut or damaged, where its end is reached, and OSError.
    """
    end = 0
    with local_copy(tar) as local, open(local, "rb") as file:
        for key, members in groupby(member_places(local), lambda place: place[0].partition(".")[0]):
            places = [(name.partition(".")[2], offset, length) for name, offset, length in members]
            _, offset, length = places[-1]
            end = offset + -(-length // BLOCKSIZE) * BLOCKSIZE
            if keys is None or key in keys:
                yield key, {part: _read(tar, file.fileno(), *place) for part, *place in places if part in parts}
        check_end(local, end)


def may_hold(tar: Path, keys: Collection[str]) -> bool:
    """Tell whether a shard of pairs may hold some of these: of a store by the table beside it, which is small, since a
    tar that holds one is fetched whole."""
    if not is_remote(tar):
        return True
    try:
        held = read_parquet(tar.with_suffix(".parquet"), ["key"])["key"].to_pylist()
    except (OSError, FormatError):
        return True
    return not set(held).isdisjoint(keys)


def _read(tar: Path, descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) != length:
        raise ShardError(f"{tar}: cut at byte {offset + len(data)}, in the middle of a member")
    return data


def stored_keys(tar: Path) -> list[str]:
    """Return the keys of a shard of pairs in the tar's order. Raises as `stored_pictures`."""
    return [key for key, _ in stored_pictures(tar, parts=())]
