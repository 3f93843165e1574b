"""Take rows whose pictures a list of hashes names out of what was written before the picture came: their URLs and
texts."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from filters.digest_lists import RULE, DigestLists
from manifests.aside import ASIDE, UNDER_WAY
from manifests.files import FormatError, read_schema, read_table
from manifests.journal import ShardRecord, records_of
from manifests.plans import plan_folder
from manifests.tombstones import TABLE, read_tombstones, write_tombstones
from manifests.transaction import changes, commit
from manifests.working_copy import link, working_copy
from pipeline.execution.redact_aside import PAIRS, files_aside, redact_aside
from pipeline.execution.redaction import RemovedRows, from_lines, from_table, from_tar
from pipeline.execution.step import Step
from pipeline.inputs.redact_table import blank_input
from pipeline.recipes.rules import input_columns

Row = dict[str, Any]
LEFT = (UNDER_WAY, ASIDE, "logs")
"""Folders that a working copy leaves out, and rows may stand in."""


def hits_of(root: Path) -> list[Row]:
    """Return uid, kind, value_sha256 and list of the rows of the fetch ledger that lists of hashes have named."""
    found: list[Row] = []
    for record in records_of(root, "fetch"):
        if not record.dropped.get("removed"):
            continue
        table = read_table(root / record.files[-1].path, ["uid", "last", "reason", "rule", "value"])
        named = pc.and_(pc.equal(table["reason"], "removed"), pc.starts_with(table["rule"], RULE.strip()))
        for row in table.filter(pc.fill_null(pc.and_(table["last"], named), False)).to_pylist():
            kind, _, value = row["value"].partition(" ")
            name = row["rule"].removeprefix(RULE.strip()).strip() or None
            found.append({"uid": row["uid"], "kind": kind, "value_sha256": value, "list": name})
    return found


def take_out(steps: "tuple[Step, Step]") -> Counter[str]:
    """Take the rows that lists of hashes have named out of the run, as `pipeline remove` would: what is left of each is
    a tombstone.

    `steps`: select and fetch, which have ended. All new files are whole before the first old one goes. Returns list ->
    rows.
    """
    root = steps[0].root
    hits = hits_of(root)
    if not hits:
        return Counter()
    uids = frozenset(hit["uid"] for hit in hits)
    places = _places(root, uids)
    removed = RemovedRows(uids, frozenset(row["url"] for row in places if row["url"]))
    with working_copy(root, ()) as copy:
        names = _all_of(root, copy)
        recipe = steps[0].recipe
        inside = recipe.model_copy(update={"output": recipe.output.model_copy(update={"root": str(copy)})})
        write_tombstones(copy, [*read_tombstones(root).table.to_pylist(), *_tombstones(root, hits, places)])
        blank_input(copy, input_columns(inside), read_tombstones(copy))
        for step in steps:
            _redact(replace(step, recipe=inside, root=copy), removed)
        _redact_left(copy, removed)
        commit(root, copy, changes(root, copy, names))
    return Counter(hit["list"] or "tombstones" for hit in hits)


def take_aside(root: Path, named: DigestLists) -> int:
    """Take the rows whose pictures a list or a tombstone names out of what was set aside, of every step; return how
    many."""
    uids: set[bytes] = set()
    for path in files_aside(root, PAIRS) if named else ():
        try:
            known = [kind for kind in named.kinds if kind in read_schema(path).names]
            table = read_table(path, ["key", *known])
        except (OSError, FormatError):
            continue  # damaged: none of its rows is ever used
        uids.update(bytes.fromhex(table["key"][row].as_py()) for row, _ in (named.hits(table) if known else ()))
    if uids:
        redact_aside(root, RemovedRows(frozenset(uids)))
    return len(uids)


def _places(root: Path, uids: frozenset[bytes]) -> list[Row]:
    """Return uid, source, source_row and url of every row of the input with one of these uids."""
    wanted = pa.array(sorted(uids), pa.binary(16))
    found: list[Row] = []
    for record in records_of(root, "select"):
        table = read_table(root / record.files[0].path, ["uid", "source", "source_row", "url"])
        found += table.filter(pc.fill_null(pc.is_in(table["uid"], value_set=wanted), False)).to_pylist()
    return found


def _tombstones(root: Path, hits: list[Row], places: list[Row]) -> list[Row]:
    """Return a tombstone for each row of the input that a list has named; those that were planned leave a gap."""
    of_uid = {hit["uid"]: hit for hit in hits}
    shards: dict[tuple[str, int], str] = {}
    for path in sorted(plan_folder(root, "fetch").glob("*.parquet")):
        table = read_table(path, ["uid", "source", "source_row"])
        for row in table.filter(pc.is_in(table["uid"], value_set=pa.array(sorted(of_uid), pa.binary(16)))).to_pylist():
            shards[row["source"], row["source_row"]] = path.stem
    empty: Row = {**dict.fromkeys(TABLE.names), "tiers": [], "packed": [], "packed_bytes": [], "won": False}
    return [
        {
            **empty,
            **of_uid[row["uid"]],
            **{name: row[name] for name in ("source", "source_row")},
            "shard": shards.get((row["source"], row["source_row"])),
            "promote": False,
        }
        for row in places
    ]


def _all_of(root: Path, copy: Path) -> list[str]:
    """Add to the copy what it leaves out and rows may stand in; return the paths of all its files."""
    for folder in LEFT:
        for path in (path for path in sorted((root / folder).rglob("*")) if path.is_file()):
            link(path, copy / path.relative_to(root))
    return [path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()]


def _redact(step: Step, removed: RemovedRows) -> None:
    """Take the rows out of a step's outputs in the copy; its shards are done under the keys of the plan without
    them."""
    units = {unit.name: unit for unit in step.units()}
    for before in records_of(step.root, step.name):
        record = step.redact(before, removed)
        if before.shard in units:
            step.journal.record(replace(record, key=units[before.shard].key))
        else:
            _forget(step, before)


def _forget(step: Step, record: ShardRecord) -> None:
    """Drop a shard of which the plan holds nothing any more."""
    for file in record.files:
        (step.root / file.path).unlink(missing_ok=True)
    (step.journal.folder / f"{record.shard}.json").unlink()


def _redact_left(copy: Path, removed: RemovedRows) -> None:
    """Take the rows out of what was set aside and out of logs."""
    redact_aside(copy, removed)
    for path in sorted(path for place in (UNDER_WAY, ASIDE) for path in (copy / place).rglob("*") if path.is_file()):
        if path.suffix in (".parquet", ".tar"):
            (from_table if path.suffix == ".parquet" else from_tar)(path, removed, "earlier")
    for path in sorted(path for path in (copy / "logs").rglob("*") if path.is_file()):
        from_lines(path, removed, "logs")
