"""Say of the rows that go what their tombstones keep: place, pHash, tiers, and where they leave gaps."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from filters.tombstones import url_digests
from manifests.aside import PAIRS
from manifests.files import read_present, read_table
from manifests.in_threads import each
from manifests.journal import records_of
from manifests.plans import planned_tables
from manifests.schema import DIGESTS
from pipeline.execution.redact_aside import files_aside
from pipeline.execution.step import Step
from pipeline.maintenance.remove.selectors import Selector

Row = dict[str, Any]
NOBODY: Row = {
    "phash": None,
    "uid": None,
    "source": None,
    "source_row": None,
    "shard": None,
    "tiers": [],
    "packed": [],
    "packed_bytes": [],
}


def urls_of(root: Path, uids: Collection[bytes]) -> frozenset[str]:
    """Return the URLs of the rows with these uids, of those too that were set aside."""
    selected = [root / record.files[0].path for record in records_of(root, "select")]
    rows = chain.from_iterable(each(root, partial(_rows, uids=uids, columns=["uid", "url"]), selected))
    hexes = {uid.hex() for uid in uids}
    aside = (
        url
        for table in (read_table(path, ["key", "url"]) for path in files_aside(root, PAIRS))
        for key, url in zip(table["key"].to_pylist(), table["url"].to_pylist(), strict=True)
        if key in hexes
    )
    return frozenset(url for url in chain((row["url"] for row in rows), aside) if url)


def tombstones_of(
    root: Path, steps: Sequence[Step], hits: Mapping[Selector, Collection[bytes]], promote: bool
) -> list[Row]:
    """Return the tombstones of what selectors found: a row per selector and input row, one with the uid alone where the
    ledgers know no row of it (it lies aside, or may come with later input), one alone where another selector found
    nothing, and one for each URL of pictures that digests name, so that its later rows are not asked for.

    `steps` of the run at `root`: some of them keep the places of removed samples empty.
    """
    uids = {uid for uids_hit in hits.values() for uid in uids_hit}
    rows_of = _rows_of_uids(root, uids, _packed(steps, uids)) if uids else {}
    tombstones = []
    for selector, uids_hit in hits.items():
        head = {"kind": selector.kind, "value_sha256": selector.digest, "won": False, "promote": promote}
        named = {*uids_hit, *([bytes.fromhex(selector.value)] if selector.kind == "uid" else [])}
        rows = [row for uid in sorted(named) for row in rows_of.get(uid) or [{"uid": uid}]]
        of_picture = {"phash": int(selector.value, 16)} if selector.kind == "phash" else {}
        tombstones += [{**NOBODY, **head, **row, **of_picture} for row in rows or [{}]]
    pictures = {uid for selector, uids_hit in hits.items() if selector.kind in DIGESTS for uid in uids_hit}
    urls = url_digests(pa.array(sorted(urls_of(root, pictures)) if pictures else [], pa.string()))
    known = {row["value_sha256"] for row in tombstones if row["kind"] == "url"}
    head = {"kind": "url", "won": False, "promote": promote}
    return tombstones + [
        {**NOBODY, **head, "value_sha256": one} for one in urls.unique().to_pylist() if one not in known
    ]


def _rows_of_uids(root: Path, uids: Collection[bytes], packed: dict[bytes, dict[str, int]]) -> dict[bytes, list[Row]]:
    """Return uid -> its rows of the input, with what later steps made of them."""
    scored = [root / record.files[0].path for record in records_of(root, "score")]
    found = each(root, partial(_rows, uids=uids, columns=["uid", "phash"]), scored)
    hashes = {row["uid"]: row["phash"] for rows in found for row in rows}
    tables = planned_tables(root, "fetch")
    of_plan = each(root, partial(_rows, uids=uids, columns=["uid", "source", "source_row"]), tables)
    planned = {
        (row["source"], row["source_row"]): path.stem
        for path, rows in zip(tables, of_plan, strict=True)
        for row in rows
    }
    finals = [root / file.path for record in records_of(root, "decide") for file in record.files]
    fates = each(root, partial(_rows, uids=uids, columns=["uid", "source", "source_row", "fate", "tiers"]), finals)
    kept = {(row["source"], row["source_row"]): row["tiers"] for rows in fates for row in rows if row["fate"] == "kept"}
    rows_of: dict[bytes, list[Row]] = {uid: [] for uid in uids}
    for record in records_of(root, "select"):
        for row in _rows(root / record.files[0].path, uids, ["uid", "source", "source_row"]):
            place = (row["source"], row["source_row"])
            gap = packed.get(row["uid"], {}) if place in planned else {}
            rows_of[row["uid"]].append(
                {
                    **row,
                    "phash": hashes.get(row["uid"]),
                    "shard": planned.get(place),
                    "tiers": kept.get(place, []),
                    "packed": list(gap),
                    "packed_bytes": list(gap.values()),
                    "won": place in kept,
                }
            )
    return rows_of


def _packed(steps: Sequence[Step], uids: Collection[bytes]) -> dict[bytes, dict[str, int]]:
    """Return uid -> tier -> bytes that a sample counts in the tier's packed order."""
    sizes: dict[bytes, dict[str, int]] = {}
    for step in steps:
        for uid, by_tier in step.packed_bytes(uids).items():
            sizes.setdefault(uid, {}).update(by_tier)
    return sizes


def _rows(path: Path, uids: Collection[bytes], columns: list[str]) -> list[Row]:
    table = read_present(path, columns)
    values = pa.array(sorted(uids), table.schema.field("uid").type)
    rows: list[Row] = table.filter(pc.is_in(table["uid"], value_set=values)).to_pylist()
    return rows
