"""filter / decide, second half: one final row per input row, a unit per shard of the select ledger."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.survivors import halves
from filters.verdicts import PASSES, Numbers, final_fates, flags, names_of, reasons_of
from manifests.files import digest_of, read_json, read_table, write_table
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.schema import COLUMNS, DIGESTS, schema
from manifests.tombstones import read_tombstones
from pipeline.execution.in_flight import InFlight
from pipeline.execution.shuffle import Derived
from pipeline.execution.step import Unit
from pipeline.recipes.rules import build_rules, origins
from pipeline.steps.arrow_files import read_arrow
from pipeline.steps.contest import losers_of
from pipeline.steps.evaluate import NOT_EVALUATED, scratch_of
from pipeline.steps.facts import FetchShard, ShardFacts, Values, facts_of, final_values
from pipeline.steps.labels import Labels, by_tombstone, mark_names

TIERS = pa.field("tiers", pa.list_(pa.string()), metadata={"says": "tiers that the pair is in; empty where dropped"})
LAST = (
    pa.field("shard", pa.string(), metadata={"says": "shard of pairs/ that the row was fetched into"}),
    pa.field(
        "step",
        pa.string(),
        metadata={"says": "step whose reason it is: select, fetch, score, dedup (removed), decide; null where kept"},
    ),
    pa.field("mark", pa.string(), metadata={"says": "placeholder, in_eval_set or removed, whatever the rules say"}),
    pa.field(
        "cluster", pa.binary(16), metadata={"says": "smallest uid of its near duplicates; null where it has none"}
    ),
    *schema(*DIGESTS),
)
ORIGIN = {"says": "where the value came from: input, decoded, or the head that made it"}
PIECE = 1_000_000
"""Rows that are written in one piece: pages of the file end where pieces do."""
INDEX = "index.json"
"""In the scratch folder: what a shard of the select ledger has to look into."""
NO_SPANS = np.empty((0, 2), np.int64)
ROW_BITS = 40
"""Bits of a row's number in its file; those above say which file."""


@dataclass(frozen=True)
class IndexEntry:
    """One fetch shard as the index holds it: where it is, in which file of verdicts it begins at which row, how many
    rows it has, and the (source, first row, last row) that they come from."""

    shard: FetchShard
    number: int
    start: int
    rows: int
    spans: tuple[tuple[str, int, int], ...]

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, entry: dict[str, Any]) -> "IndexEntry":
        """Read what `plain` returned."""
        return cls(**{**entry, "shard": FetchShard(**entry["shard"]), "spans": tuple(map(tuple, entry["spans"]))})


def index_entries(unit: Unit, said: dict[str, Any]) -> list[IndexEntry]:
    """Return the fetch shards of a unit that was evaluated, given what its record says."""
    starts = [0, *accumulate(said["rows"])]
    return [
        IndexEntry(FetchShard(**shard), unit.reads["number"], starts[place], rows, tuple(map(tuple, spans)))
        for place, (shard, rows, spans) in enumerate(
            zip(unit.reads["shards"], said["rows"], said["spans"], strict=True)
        )
    ]


@dataclass(frozen=True)
class Fates:
    """What is known of the rows of one shard of the select ledger, in its order. `place`: their row among the planned
    rows of `shards`, -1 for rows that the fetch did not plan; `taken`: the planned rows that they are, of each of
    `shards`. code, tiers, cluster: of those rows; `marks`: of all."""

    ledger: pa.Table
    shards: list[ShardFacts]
    taken: list[Numbers]
    place: Numbers
    code: Numbers
    tiers: Numbers
    cluster: pa.Array
    marks: Numbers
    gone: pa.Array


@dataclass(frozen=True)
class Final(Derived):
    """Units are the shards of the select ledger; one whose rows stay as they were is not written again."""

    name: ClassVar[str] = "final"

    @property
    def journal(self) -> Journal:
        """Return a journal in the scratch folder, of files in the run folder."""
        journal = Journal(self.root, self.name)
        journal.folder = Journal(scratch_of(self.root), self.name).folder
        return journal

    def open(self) -> "Final":
        """Return itself: what units share is read with the first of them."""
        return self

    @cached_property
    def index(self) -> dict[str, Any]:
        """Return what the driver says of all fetch shards."""
        return read_json(scratch_of(self.root) / INDEX)

    @cached_property
    def by_source(self) -> dict[str, tuple[list[IndexEntry], Numbers]]:
        """Return source -> the fetch shards that hold rows of it, and the first and last row in each: (n, 2)."""
        found: dict[str, tuple[list[IndexEntry], list[tuple[int, int]]]] = {}
        for entry in map(IndexEntry.of, self.index["shards"]):
            for source, first, last in entry.spans:
                entries, spans = found.setdefault(source, ([], []))
                entries.append(entry)
                spans.append((first, last))
        return {source: (entries, np.array(spans)) for source, (entries, spans) in found.items()}

    @cached_property
    def values(self) -> Values:
        """Return the value columns and where they come from."""
        return final_values(origins(self.recipe))

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Return the table of reasons that codes are places in."""
        return reasons_of(build_rules(self.recipe))

    @cached_property
    def gone(self) -> pa.Table:
        """Return source, source_row and uid of removed rows."""
        return read_tombstones(self.root).places

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `ledger/final/NAME.parquet`, its rows in the order of `ledger/select/NAME.parquet`; where these have
        the fates that the file there has, it stays."""
        with in_flight.working_on(unit.name, ()):
            fates = self._fates(self.root / unit.reads["ledger"])
            rows, key = fates.ledger.num_rows, self._key(unit, fates)
            if rows != unit.reads["rows"]:
                raise AssertionError(
                    f"decide: {rows} final rows for the {unit.reads['rows']} of {unit.reads['ledger']}"
                )
            path = self.root / "ledger" / "final" / f"{unit.name}.parquet"
            before = unit.reads["before"]
            file = FileRecord(**before["file"]) if before and before["key"] == key else None
            if file is not None and file.is_whole(self.root):
                reason = read_table(path, ["reason"])["reason"]
            else:
                table = self._final(fates)
                write_table(path, table)
                file, reason = FileRecord.of(self.root, path), table["reason"]
        counts = pc.value_counts(reason.drop_null()).to_pylist()
        reasons = Counter({entry["values"]: entry["counts"] for entry in counts})
        return ShardRecord(unit.name, unit.key, (file,), rows, rows - reasons.total(), dict(reasons), {"key": key})

    def _fates(self, path: Path) -> Fates:
        """Find the rows of a shard of the select ledger among those of the fetch shards that hold rows of its
        sources."""
        ledger = read_table(path, ["source", "source_row", "uid", "url", "reason"]).combine_chunks()
        files = ledger["source"].combine_chunks().unique()
        ours = _places(ledger, files)
        passed = flags(pc.is_null(ledger["reason"]))
        shards, taken, keys, codes, tiers, clusters = [], [], [np.empty(0, np.int64)], [], [], []
        for entry in self._overlapping(files, ours):
            facts = ShardFacts(self.root, entry.shard, self.values)
            theirs = _places(facts.keys, files)
            mine = np.flatnonzero((theirs >= ours.min()) & (theirs <= ours.max()) & facts.is_attempted)
            verdicts = read_arrow(scratch_of(self.root) / "evaluated" / f"{entry.number:05d}.arrow")
            part = verdicts.slice(entry.start, entry.rows)
            shards.append(facts)
            taken.append(mine)
            keys.append(theirs[mine])
            codes.append(self._settled(entry, part)[mine])
            tiers.append(part["tiers"].to_numpy()[mine])
            clusters += part["cluster"].take(pa.array(mine)).chunks
        return Fates(
            ledger,
            shards,
            taken,
            _find(np.where(passed, ours, -1), np.concatenate(keys)),
            np.concatenate([np.empty(0, np.int16), *codes]),
            np.concatenate([np.empty(0, np.uint64), *tiers]),
            pa.chunked_array(clusters, pa.binary(16)).combine_chunks(),
            Labels(scratch_of(self.root)).marks(ledger["uid"].combine_chunks()),
            self._removed(ledger, files, ours),
        )

    def _overlapping(self, files: pa.Array, ours: Numbers) -> list[IndexEntry]:
        """Return the fetch shards that may hold rows of these files, in order."""
        found: dict[str, IndexEntry] = {}
        for number, source in enumerate(files.to_pylist()):
            rows = ours[ours >> ROW_BITS == number] & ((1 << ROW_BITS) - 1)
            low, high = int(rows.min()), int(rows.max())
            entries, spans = self.by_source.get(source, ([], NO_SPANS))
            for place in np.flatnonzero((spans[:, 0] <= high) & (spans[:, 1] >= low)).tolist():
                found[entries[place].shard.name] = entries[place]
        return [found[name] for name in sorted(found)]

    def _settled(self, entry: IndexEntry, part: pa.Table) -> Numbers:
        """Return the codes of a fetch shard's rows, near duplicates among them."""
        code: Numbers = part["code"].to_numpy().copy()
        lost = losers_of(scratch_of(self.root), entry.number) - entry.start
        code[lost[(lost >= 0) & (lost < entry.rows)]] = self.index["near"]
        return code

    def _removed(self, ledger: pa.Table, files: pa.Array, ours: Numbers) -> pa.Array:
        """Return the uids of the rows that were removed, null for the others."""
        here = self.gone.filter(pc.is_in(self.gone["source"], value_set=files))
        place = _find(ours, _places(here, files))
        return here["uid"].combine_chunks().take(pa.array(place, mask=place < 0))

    def _key(self, unit: Unit, fates: Fates) -> str:
        """Return a digest of everything that the shard's final rows depend on."""
        names = sorted({self.reasons[code] for code in np.unique(fates.code).tolist() if code >= 0})
        ranks = {self.reasons.index(name): rank for rank, name in enumerate(names)}
        found = hashlib.sha256()
        codes = np.array([ranks.get(code, code) for code in range(len(self.reasons))] + [NOT_EVALUATED, -1], np.int16)
        tiers = np.where(fates.code == PASSES, fates.tiers, 0)  # of others they say nothing
        for part in (fates.place, codes[fates.code], tiers, fates.marks, *fates.taken):
            found.update(np.ascontiguousarray(part).tobytes())
        for column in (fates.cluster, fates.gone):
            found.update(np.where(flags(pc.is_valid(column))[:, None], halves(column), 0).tobytes())
        content = [[facts.shard.name, facts.shard.content] for facts in fates.shards]
        made_by = [self.index["version"], origins(self.recipe), list(self.recipe.tier), names, self.index["lacking"]]
        return digest_of([unit.content, content, made_by, found.hexdigest()])

    def _final(self, fates: Fates) -> pa.Table:
        """Return the final rows of one shard of the select ledger, in its order."""
        planned = pa.array(fates.place, mask=fates.place < 0)
        known = self._known(fates).take(planned)
        mute = pa.array(by_tombstone(fates.marks))
        ledger, here = fates.ledger, fates.place >= 0
        code = np.full(len(here), -1, np.int16)
        code[here] = fates.code[fates.place[here]]
        tiers = np.zeros(len(here), np.uint64)
        tiers[here] = fates.tiers[fates.place[here]]
        reason, step = final_fates(
            pa.table(
                {
                    "mark": mark_names(fates.marks),
                    "selected": ledger["reason"],
                    "planned": pa.array(here),
                    "fault": known["fault"],
                    "fault_step": known["step"],
                    "evaluated": names_of(code, self.reasons),
                }
            )
        )
        kept = pc.is_null(reason)
        own = {**{name: ledger[name] for name in ("source", "source_row")}, "reason": reason, "step": step}
        own["uid"] = pc.coalesce(ledger["uid"], fates.gone)
        own["fate"] = pc.if_else(kept, "kept", "dropped")
        own["tiers"] = tier_lists(pa.array(tiers), kept, list(self.recipe.tier))
        own["mark"] = mark_names(fates.marks)
        said = {"url": ledger["url"], **{name: known[name] for name in known.column_names}}
        fields = [
            field
            for name in self.values
            for field in (COLUMNS[name], pa.field(f"{name}_origin", pa.string(), metadata=ORIGIN))
        ]
        final = pa.schema([*schema("source", "source_row", "uid", "url", "fate", "reason"), TIERS, *fields, *LAST])
        columns = []
        for field in final:
            column = own.get(field.name)
            if column is None:
                column = said[field.name].cast(field.type)
                column = pc.if_else(mute, pa.scalar(None, field.type), column) if pc.any(mute).as_py() else column
            columns.append(_pieces(column.cast(field.type)))
        return pa.table(columns, schema=final).drop_columns(self.index["lacking"])

    def _known(self, fates: Fates) -> pa.Table:
        """Return what fetch, score and dedup know of the planned rows that are in the shard."""
        wanted = [*(name for value in self.values for name in (value, f"{value}_origin")), *DIGESTS]
        wanted += ["fault", "step", "shard"]
        if not fates.shards:
            kinds = {name: COLUMNS[name].type for name in (*self.values, *DIGESTS)}
            return pa.table({name: pa.nulls(0, kinds.get(name, pa.string())) for name in [*wanted, "cluster"]})
        ends = accumulate((len(facts.uids) for facts in fates.shards), initial=0)
        taken = np.concatenate([rows + end for rows, end in zip(fates.taken, ends, strict=False)])
        return facts_of(fates.shards, wanted).take(pa.array(taken)).append_column("cluster", fates.cluster)


def _places(rows: pa.Table, files: pa.Array) -> Numbers:
    """Return where each row stands: number of its file among `files`, and its row in it; -1 for rows of others."""
    number = pc.fill_null(pc.index_in(rows["source"], value_set=files), -1).to_numpy().astype(np.int64)
    return np.where(number < 0, -1, (number << ROW_BITS) | rows["source_row"].to_numpy())


def _find(wanted: Numbers, places: Numbers) -> Numbers:
    """Return the number of each wanted place among `places`, -1 where it is not there; -1 is nowhere."""
    found = pc.index_in(pa.array(wanted, mask=wanted < 0), value_set=pa.array(places), skip_nulls=True)
    numbers: Numbers = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    return numbers


def _pieces(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in pieces of PIECE rows."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    starts: Iterable[int] = range(0, max(len(whole), 1), PIECE)
    return pa.chunked_array([whole.slice(start, PIECE) for start in starts], whole.type)


def tier_lists(passed: pa.Array | pa.ChunkedArray, kept: pa.Array | pa.ChunkedArray, tiers: list[str]) -> pa.Array:
    """Return the list of tiers of each kept row, an empty one of dropped rows, from the bits of `passed`."""
    bits = np.where(flags(kept), pc.fill_null(passed, 0).to_numpy().astype(np.uint64), np.uint64(0))
    kinds, place = np.unique(bits, return_inverse=True)
    lists = [[name for n, name in enumerate(tiers) if int(kind) >> n & 1] for kind in kinds]
    return pa.array(lists, TIERS.type).take(pa.array(place))
