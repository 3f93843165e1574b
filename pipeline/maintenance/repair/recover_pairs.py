"""Save what is whole of a damaged shard of pairs, so that only the pictures that are lost are fetched again."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.aside import UNDER_WAY, Group
from manifests.damage import scan
from manifests.files import FormatError, parse_json, read_table, write_table
from manifests.journal import FileRecord
from manifests.reasons import IMAGE
from manifests.schema import DIGESTS
from manifests.shards import write_shard
from manifests.tables import ATTEMPTS
from pipeline.execution.reuse import stamp
from pipeline.execution.step import Unit

UNTOLD = ("robots", "opted_out", "too_large", "empty_body", "incomplete_body", "too_many_redirects", "bad_response")
"""Reasons of which the ledger says more than the table of pairs: when it is lost these rows are asked again."""
SIZES = ("width", "height", "original_width", "original_height")


def carry_pairs(root: Path, copy: Path, unit: Unit, local: bool) -> Unit:
    """Set aside, where the fetch step looks for earlier rows, every pair of the shard that is proved whole, and every
    failure.

    A picture is whole when its sha256 is the recorded one: in the table beside the tar, else in the shard's scores,
    else in the note that stands beside it in the tar. `local`: the pictures came with the input. Returns the unit to
    run: it asks again for nothing but what is missing, and what comes with the very bytes that were stored is stored
    so, as shards of before had files with their metadata.
    """
    name = unit.name
    table = _rows(copy / "pairs" / f"{name}.parquet")
    known = {row["key"]: row["sha256"] for row in table.values() if row["sha256"]} or scored(copy, name)
    saved = dict(_whole(root / "pairs" / f"{name}.tar", known, table))
    ledger = _ledger(copy / "ledger" / "fetch" / f"{name}.parquet", table, saved, local)
    folder, made_by, stem = copy / UNDER_WAY / "fetch", str(unit.reads["made_by"]), f"saved-{name}"
    paths = (folder / f"{stem}-ledger.parquet", folder / f"{stem}-pairs.tar")
    write_table(paths[0], stamp(ledger, made_by))
    write_shard(paths[1], sorted(saved.items()))
    files = tuple(FileRecord.of(folder, path) for path in paths)
    Group(folder, stem, "fetch", made_by, ledger.num_rows, paths[0].name, files).write()
    reads = {key: value for key, value in unit.reads.items() if key != "again"}
    lost = tuple(sorted(sha256 for key, sha256 in known.items() if key not in saved))
    return replace(unit, reads={**reads, "digests": _digests_of_shard(copy, name, table, saved), "as_received": lost})


def _digests_of_shard(
    copy: Path, name: str, table: Mapping[str, dict[str, Any]], saved: Mapping[str, dict[str, bytes]]
) -> tuple[str, ...]:
    """Return which digests of what was received the shard holds: those of before that there were any hold none, and
    their bytes must come out the same."""
    ledger = _table(copy / "ledger" / "fetch" / f"{name}.parquet")
    notes = (json.loads(parts["json"]) for parts in saved.values())
    known = next(iter(table.values()), None) or (ledger.schema.names if ledger is not None else next(notes, DIGESTS))
    return tuple(digest for digest in DIGESTS if digest in known)


def scored(root: Path, shard: str) -> dict[str, str]:
    """Return key -> sha256 in hex of the shard's pictures as its scores have them; nothing where there are none."""
    table = _table(root / "scores" / f"{shard}.parquet", ["uid", "sha256"])
    return (
        {row["uid"].hex(): row["sha256"].hex() for row in table.to_pylist() if row["sha256"]}
        if table is not None
        else {}
    )


def _table(path: Path, columns: list[str] | None = None) -> pa.Table | None:
    """Return a table, or None where there is none or it is damaged: its record may be lost, so that nobody knew."""
    try:
        return read_table(path, columns)
    except (OSError, FormatError):
        return None


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    table = _table(path)
    return {row["key"]: row for row in table.to_pylist()} if table is not None else {}


def _whole(
    path: Path, known: Mapping[str, str], table: Mapping[str, dict[str, Any]]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, parts) of the pairs in a damaged tar whose picture has its recorded sha256."""
    parts: dict[str, dict[str, bytes]] = {}
    with contextlib.suppress(OSError):  # a disk that cannot read on: what was read by then is saved
        for piece in scan(path) if path.is_file() else ():
            key, _, extension = piece.name.partition(".")
            parts.setdefault(key, {}).update({} if piece.fault else {extension: piece.data})
    for key, members in parts.items():
        note = table.get(key) or _note(path, members.get("json", b""))
        expected = known.get(key) or str(note.get("sha256"))
        if (
            "jpg" in members
            and hashlib.sha256(members["jpg"]).hexdigest() == expected
            and all(note.get(size) for size in SIZES)
        ):
            text = str(note.get("caption") or "").encode()
            yield key, {"jpg": members["jpg"], "txt": text, "json": json.dumps(note, ensure_ascii=False).encode()}


def _note(path: Path, data: bytes) -> dict[str, Any]:
    """Return the note beside a picture in the tar at `path`, nothing for one that is damaged."""
    try:
        note = parse_json(path, data)
    except FormatError:
        return {}
    return note if isinstance(note, dict) else {}


def _ledger(
    path: Path, table: Mapping[str, dict[str, Any]], saved: Mapping[str, dict[str, bytes]], local: bool
) -> pa.Table:
    """Return the attempts that need no repeating: of saved pictures, and of rows that failed."""
    ledger = _table(path)
    if ledger is not None:
        succeeded = pc.unique(ledger.filter(pc.is_null(ledger["reason"]))["uid"])
        lost = [uid for uid in succeeded.to_pylist() if uid.hex() not in saved]
        is_lost = pc.and_(pc.is_in(ledger["uid"], pa.array(lost, pa.binary(16))), ledger["last"])
        return ledger.filter(
            pc.invert(is_lost)
        )  # what failed before it came stays: the ledger's bytes must come out the same
    rows = [
        {
            "uid": bytes.fromhex(key),
            "attempt": 1,
            "last": True,
            "http_status": None if local else _status(row["error_message"]),
            "reason": row["error_message"],
            **_digests(row),
        }
        for key, row in table.items()
        if key in saved or (row["error_message"] and (local or row["error_message"] not in UNTOLD))
    ]
    if not table:
        rows = [
            {
                "uid": bytes.fromhex(key),
                "attempt": 1,
                "last": True,
                "http_status": None if local else 200,
                "reason": None,
                **_digests(json.loads(saved[key]["json"])),
            }
            for key in saved
        ]
    return pa.Table.from_pylist(rows, schema=ATTEMPTS)


def _digests(row: Mapping[str, Any]) -> dict[str, bytes | None]:
    """Return the digests of what was received as the ledger has them, from a row or note of a pair."""
    return {name: bytes.fromhex(row[name]) if row.get(name) else None for name in DIGESTS}


def _status(reason: str | None) -> int | None:
    """Return the HTTP status that goes with a reason: what the table does not hold, and the lost ledger did."""
    if reason is None or reason in IMAGE:
        return 200
    return int(reason[5:]) if reason.startswith("http_") and reason[5:].isdigit() else None


def changed(old: Mapping[str, str], path: Path) -> list[str]:
    """Return what became of pictures (key -> recorded sha256) that a shard's new table does not hold as they were."""
    said = []
    for key, row in _rows(path).items():
        if old.get(key) and row["sha256"] != old[key]:
            said.append(f"{row['url']} ({row['error_message'] or 'another picture now'})")
    return said


def recorded(root: Path, shard: str, damaged: bool) -> dict[str, str]:
    """Return key -> recorded sha256 of a shard's pictures, from its table, else from its scores."""
    rows = {} if damaged else _rows(root / "pairs" / f"{shard}.parquet")
    return {key: row["sha256"] for key, row in rows.items() if row["sha256"]} or scored(root, shard)
