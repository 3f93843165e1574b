"""Lay pictures, texts and metadata out as img2dataset does: `NAME.tar`, `NAME.parquet`, `NAME_stats.json`."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from filters.fetch.digests import NONE, Digests
from filters.images.decode import Stored
from manifests.files import parsing
from manifests.reasons import IMAGE
from manifests.schema import DIGESTS, SCORES, schema
from manifests.shards import ShardError
from manifests.stored_pictures import stored_pictures

METADATA = ("top_caption", *SCORES)
SIZES = ("width", "height", "original_width", "original_height")


@dataclass(frozen=True)
class Attempt:
    """One attempt to fetch a row. `rule`, `value`: the receipt of a refusal (`robots`, `opted_out`), word for word.
    `digests`: of the bytes that came."""

    http_status: int | None = None
    reason: str | None = None
    rule: str | None = None
    value: str | None = None
    digests: Digests = NONE


@dataclass(frozen=True)
class Result:
    """What became of one planned row: its attempts, oldest first (the last one counts), and where its picture lies in
    the spool."""

    attempts: tuple[Attempt, ...]
    stored: Stored | None = None
    start: int = 0
    length: int = 0

    @property
    def last(self) -> Attempt:
        """Return the attempt that counts."""
        return self.attempts[-1]

    @property
    def is_hit(self) -> bool:
        """Tell whether a list of hashes names the picture: nothing of it is written."""
        return self.last.reason == "removed" and self.last.rule is not None


@dataclass
class Spool:
    """Pictures in order of arrival, on disk, so that memory does not grow with the shard."""

    file: IO[bytes]
    end: int = 0

    def put(self, data: bytes) -> tuple[int, int]:
        """Append bytes; return (start, length)."""
        self.file.seek(self.end)
        self.file.write(data)
        start, self.end = self.end, self.end + len(data)
        return start, len(data)

    def get(self, start: int, length: int) -> bytes:
        """Return bytes put earlier."""
        self.file.seek(start)
        return self.file.read(length)


def samples(
    rows: list[dict[str, Any]], results: Mapping[bytes, Result], spool: Spool, digests: Sequence[str] = DIGESTS
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the tar's samples in the planned order; notes each picture's sha256 in its row.

    `digests`: those that are written, none where a shard of before is made again.
    """
    for row in rows:
        result = results[row["uid"]]
        if result.stored is None:
            continue
        jpeg = spool.get(result.start, result.length)
        row["sha256"] = hashlib.sha256(jpeg).hexdigest()
        note = json.dumps(_pair(row, result, digests), ensure_ascii=False, allow_nan=False)
        yield row["uid"].hex(), {"jpg": jpeg, "txt": (row["text"] or "").encode(), "json": note.encode()}


def earlier_pictures(tar: Path, uids: Iterable[bytes]) -> Iterator[tuple[bytes, bytes, Stored]]:
    """Yield (uid, JPEG, its sizes) of these pairs of a tar that `samples` made. Raises ShardError, OSError."""
    for key, sample in stored_pictures(tar, {uid.hex() for uid in uids}, ("jpg", "json")):
        with parsing(tar, f"pair {key} is not as it was stored", ShardError):
            note = json.loads(sample["json"])
            pair = bytes.fromhex(key), sample["jpg"], Stored(b"", *(note[name] for name in SIZES))
            if note["sha256"] != hashlib.sha256(sample["jpg"]).hexdigest():
                raise ValueError("the picture is not of its sha256")
        yield pair


def _pair(row: Mapping[str, Any], result: Result, digests: Sequence[str]) -> dict[str, Any]:
    """Return a pair's row in img2dataset's words, and what the input said of it: of a removed one, nothing."""
    stored = result.stored
    row = {"uid": row["uid"], **dict.fromkeys(("url", "text", *METADATA))} if result.is_hit else row
    return {
        "key": row["uid"].hex(),
        "url": row["url"],
        "caption": row["text"],
        "status": "success"
        if stored
        else ("failed_to_resize" if result.last.reason in IMAGE else "failed_to_download"),
        "error_message": result.last.reason,
        **{name: getattr(stored, name) if stored else None for name in SIZES},
        "sha256": row.get("sha256"),
        **{name: getattr(result.last.digests, name) for name in digests},
        **{name: row[name] for name in METADATA},
    }


def pairs_table(
    rows: list[dict[str, Any]], results: Mapping[bytes, Result], digests: Sequence[str] = DIGESTS
) -> pa.Table:
    """Return `NAME.parquet`: a row per planned row, failures too; `digests` as for `samples`."""
    text = {name: pa.string() for name in ("key", "url", "caption", "status", "error_message")}
    sizes = {name: pa.int32() for name in SIZES}
    hashes = dict.fromkeys(("sha256", *digests), pa.string())
    wanted = pa.schema({**text, **sizes, **hashes, **{f.name: f.type for f in schema(*METADATA)}})
    return pa.Table.from_pylist([_pair(row, results[row["uid"]], digests) for row in rows], schema=wanted)


def dropped_of(results: Iterable[Result]) -> Counter[str]:
    """Count the rows without a picture by reason."""
    return Counter(result.last.reason for result in results if result.last.reason)


def stats(count: int, dropped: Counter[str]) -> dict[str, Any]:
    """Return img2dataset's shard statistics without its times, which are in logs/."""
    image = sum(dropped[reason] for reason in IMAGE)
    successes = count - dropped.total()
    return {
        "count": count,
        "successes": successes,
        "failed_to_download": dropped.total() - image,
        "failed_to_resize": image,
        "status_dict": {"success": successes, **dict(sorted(dropped.items()))},
    }
