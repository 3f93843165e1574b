"""Take rows whose pictures a list of hashes names out of the run: their URLs and texts, which were written before the
picture came, and what earlier runs made of it."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from filters.digest_lists import RULE, DigestLists
from filters.tombstones import url_digests
from filters.url_forms import place_forms
from manifests.aside import PAIRS
from manifests.files import FormatError, read_schema, read_table
from manifests.journal import records_of
from manifests.plans import planned_tables
from manifests.tombstones import TABLE, read_tombstones, value_digest, write_tombstones
from manifests.transaction import changes, commit
from manifests.working_copy import whole_copy
from pipeline.execution.redact_aside import files_aside, redact_aside
from pipeline.execution.redact_later import forget, redact_later, redact_logs, redact_reports
from pipeline.execution.redaction import RemovedRows
from pipeline.execution.shuffle import drop_scratch
from pipeline.execution.step import Step
from pipeline.inputs.redact_table import blank_input
from pipeline.recipes.rules import input_columns

Row = dict[str, Any]
ENDED = ("select", "fetch")
"""Steps that have done their units when hits are taken out."""


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


def take_out(steps: Sequence[Step], named: DigestLists) -> tuple[Counter[str], int]:
    """Take the rows that lists of hashes have named out of the run, as `pipeline remove` would, and with them every
    row of their URLs: what is left of each is a tombstone.

    `steps`: those of every stage; select and fetch have ended, the others may hold what earlier runs left. `named`:
    what the pictures that were set aside are held against. All new files are whole before the first old one goes.
    Returns list -> rows, and how many rows only what was set aside held.
    """
    root = steps[0].root
    hits = {hit["uid"]: hit for hit in hits_of(root)}
    aside = {hit["uid"]: hit for hit in _aside(root, named) if hit["uid"] not in hits}
    if not hits and not aside:
        return Counter(), 0
    places = _places(root, {**aside, **hits})
    uids = frozenset(chain(hits, aside, (row["uid"] for row in places)))
    urls = {row["url"] for row in places} | {hit["url"] for hit in aside.values()}
    removed = RemovedRows(uids, frozenset(url for url in urls if url))
    drop_scratch(root)
    with whole_copy(root) as (copy, names):
        recipe = steps[0].recipe
        inside = recipe.model_copy(update={"output": recipe.output.model_copy(update={"root": str(copy)})})
        here = [replace(step, recipe=inside, root=copy) for step in steps]
        new = _tombstones(root, aside, places, removed.urls)
        write_tombstones(copy, [*read_tombstones(root).table.to_pylist(), *new])
        blank_input(copy, input_columns(inside), read_tombstones(copy))
        for step in (step for step in here if step.name in ENDED):
            _redact(step, removed)
        redact_later([step for step in here if step.name not in ENDED], removed)
        _redact_left(root, copy, removed)
        commit(root, copy, changes(root, copy, names))
    return Counter(row["list"] or "tombstones" for row in places if row["uid"] not in aside), len(aside)


def _aside(root: Path, named: DigestLists) -> Iterator[Row]:
    """Yield uid, url, kind, value_sha256 and list of the rows that were set aside and whose pictures a list or a
    tombstone names."""
    for path in files_aside(root, PAIRS) if named else ():
        try:
            known = [kind for kind in named.kinds if kind in read_schema(path).names]
            table = read_table(path, ["key", "url", *known])
        except (OSError, FormatError):
            continue  # damaged: none of its rows is ever used
        for row, hit in named.hits(table) if known else ():
            said = {"kind": hit.kind, "value_sha256": value_digest(hit.value), "list": hit.list}
            yield {"uid": bytes.fromhex(table["key"][row].as_py()), "url": table["url"][row].as_py(), **said}


def _places(root: Path, hits: Mapping[bytes, Row]) -> list[Row]:
    """Return uid, source, source_row, url, and what names it, of every row of the input that is a hit or has the URL of
    one, however it is spelt: those too that were never fetched."""
    wanted = pa.array(sorted(hits), pa.binary(16))
    of_form: dict[str, Row] = {}
    for table in _selected(root):
        of_hits = table.filter(pc.fill_null(pc.is_in(table["uid"], value_set=wanted), False))
        of_form |= _by_form((row["url"], hits[row["uid"]]) for row in of_hits.to_pylist())
    of_form |= _by_form((hit.get("url"), hit) for hit in hits.values())
    found: list[Row] = []
    for table in _selected(root):
        forms = place_forms(table["url"].combine_chunks()).now
        mine = pc.or_(_in(table["uid"], wanted), _in(forms, pa.array(sorted(of_form), pa.string())))
        for row, form in zip(table.filter(mine).to_pylist(), forms.filter(mine).to_pylist(), strict=True):
            by = hits.get(row["uid"]) or of_form[form]
            found.append({**row, **{name: by[name] for name in ("kind", "value_sha256", "list")}})
    return [row for row in found if row["uid"] is not None]


def _selected(root: Path) -> Iterator[pa.Table]:
    """Yield uid, source, source_row and url of every row of the input, a shard at a time."""
    for record in records_of(root, "select"):
        yield read_table(root / record.files[0].path, ["uid", "source", "source_row", "url"])


def _by_form(urls: Iterable[tuple[str | None, Row]]) -> dict[str, Row]:
    """Return form of the URL -> hit, of those that have one."""
    pairs = [(url, hit) for url, hit in urls if url]
    forms = place_forms(pa.array([url for url, _ in pairs], pa.string())).now.to_pylist()
    return dict(zip(forms, (hit for _, hit in pairs), strict=True))


def _in(values: Any, wanted: pa.Array) -> Any:
    return pc.fill_null(pc.is_in(values, value_set=wanted), False)


def _tombstones(root: Path, aside: Mapping[bytes, Row], places: list[Row], urls: Collection[str]) -> list[Row]:
    """Return a tombstone for each row of the input that a list has named, of which those that were planned leave a gap,
    for each row that only what was set aside held, and for each URL: its later rows are not asked for."""
    uids = pa.array(sorted({row["uid"] for row in places}), pa.binary(16))
    shards: dict[tuple[str, int], str] = {}
    for path in planned_tables(root, "fetch"):
        table = read_table(path, ["uid", "source", "source_row"])
        for row in table.filter(pc.is_in(table["uid"], value_set=uids)).to_pylist():
            shards[row["source"], row["source_row"]] = path.stem
    empty: Row = {**dict.fromkeys(TABLE.names), "tiers": [], "packed": [], "packed_bytes": [], "won": False}
    rows = [{**row, "shard": shards.get((row["source"], row["source_row"]))} for row in places]
    placed = {row["uid"] for row in places}
    rows += [hit for uid, hit in sorted(aside.items()) if uid not in placed]
    by_url = {row["url"]: row["list"] for row in [*places, *aside.values()] if row["url"] in urls}
    digests = dict(zip(url_digests(pa.array(by_url, pa.string())).to_pylist(), by_url.values(), strict=True))
    rows += [{"kind": "url", "value_sha256": value, "list": digests[value]} for value in sorted(filter(None, digests))]
    made = [{**empty, **row, "promote": False} for row in rows]
    return [{name: row[name] for name in TABLE.names} for row in made]


def _redact(step: Step, removed: RemovedRows) -> None:
    """Take the rows out of a step's outputs in the copy; its shards are done under the keys of the plan without
    them."""
    units = {unit.name: unit for unit in step.units()}
    gone = []
    for before in records_of(step.root, step.name):
        record = step.redact(before, removed)
        if before.shard not in units:
            gone.append(before)
        elif (keyed := replace(record, key=units[before.shard].key)) != before:
            step.journal.record(keyed)
    forget(step, gone)
    step.journal.compact()


def _redact_left(root: Path, copy: Path, removed: RemovedRows) -> None:
    """Take the rows out of what was set aside, out of reports and out of logs."""
    redact_aside(copy, removed)
    redact_reports(copy, removed)
    redact_logs(root, copy, removed)
