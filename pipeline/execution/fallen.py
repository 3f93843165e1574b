"""Put what fell out of a step's plan into `aside/STEP/`, once its new shards are whole: every row that a model, a
captioner or the web was asked for stands in the run once, in a shard or aside.

DuckDB compares rows by uid and by the digest of what they were made from, and spills to disk; rows are copied in
groups of at most MOST_ROWS, and a group of which every row fell out is linked as it is.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.exclude import Exclusions
from manifests.aside import ASIDE, UNDER_WAY, Group, groups, unread, unrecorded
from manifests.files import FormatError, has_columns, read_table
from manifests.journal import records_of
from manifests.query import connect, files_sql
from manifests.reasons import ASKED_AGAIN
from manifests.store import drop
from manifests.tombstones import read_tombstones
from pipeline.execution.groups import Parts, put_together
from pipeline.execution.reuse import DAMAGED, link, stamped
from pipeline.execution.stand_ins import StandIns, note_stand_ins

MOST_ROWS = 10_000
"""Rows of a group that is put together from several: a unit that takes them back opens few files."""


@dataclass
class Fallen:
    """What became of the rows: set aside now, back in a shard, held elsewhere under other settings, let go (reason ->
    rows); the groups that were found damaged, and files without a record that went."""

    rows: int = 0
    back: int = 0
    twice: int = 0
    let_go: Counter[str] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)

    def lines(self, root: Path, step: str) -> list[str]:
        """Return what the user is told."""
        said = [f"warning: {step}: {name} is damaged: none of its rows is used" for name in self.damaged]
        said += [f"{step}: {name} is dropped: no record says what it is" for name in self.swept]
        said += [f"{step}: {rows:,} rows that were set aside are let go: {why}" for why, rows in self.let_go.items()]
        if self.back:
            said.append(f"{step}: {self.back:,} rows that were set aside are back in its shards")
        if self.twice:
            said.append(f"{step}: {self.twice:,} rows that were set aside go: the same answers are held elsewhere")
        if self.rows:
            there = groups(root, ASIDE, step)
            rows, size = sum(group.rows for group in there), sum(group.bytes for group in there)
            said.append(
                f"{step}: {self.rows:,} rows fell out of the plan and are set aside in {ASIDE}/{step}, with what was"
                f" there {rows:,} rows, {size:,} bytes; pipeline prune {root} shows them"
            )
        return said


def keep_fallen(
    root: Path, step: str, digest: str, lists: Exclusions | None = None, stand_ins: StandIns = lambda _: {}
) -> list[str]:
    """Set aside what fell out of the step's shards, take out of `aside/STEP/` what is back in one, and drop
    `.earlier/STEP/`; return what to tell the user.

    `digest`: the column that holds the digest of what a row was made from; empty where a row is known by its uid.
    `lists`: what they name is let go, though no plan and no ledger holds it: of a fetch by URL and caption, of other
    steps where no picture of the uid is in the run or aside any more. `stand_ins`: how rows were made whose answers
    stand for those of a way of making, so that no second copy is kept (see stand_ins.py).
    Files come before records and new groups before old ones go, so that a kill loses nothing: the next run settles
    again.
    """
    work = _Comparison(root, step, digest, lists, stand_ins)
    work.done.damaged += [*work.noted(), *(path.relative_to(root).as_posix() for path in unread(root, ASIDE, step))]
    for path in list(unrecorded(root / ASIDE / step)):
        work.done.swept.append(path.name)
        path.unlink(missing_ok=True)
    for made_by in sorted({group.made_by for place in (ASIDE, UNDER_WAY) for group in groups(root, place, step)}):
        work.settle(made_by)
    work.done.damaged = sorted(set(work.done.damaged))
    drop(root / UNDER_WAY / step)
    for folder in (root / UNDER_WAY, root / ASIDE / step, root / ASIDE):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return work.done.lines(root, step)


@dataclass
class _Comparison:
    root: Path
    step: str
    digest: str
    lists: Exclusions | None = None
    stand_ins: StandIns = lambda _: {}
    done: Fallen = field(default_factory=Fallen)
    whole: dict[Path, bool] = field(default_factory=dict)

    def settle(self, made_by: str) -> None:
        """Settle the rows that were made in one way."""
        there = [
            group
            for place in (ASIDE, UNDER_WAY)
            for group in groups(self.root, place, self.step)
            if group.made_by == made_by and self._is_readable(group)
        ]
        try:
            self._settle(made_by, there)
        except FormatError:  # a table whose footer is whole and whose pages are not
            whole = [group for group in there if self._is_whole(group)]
            if len(whole) == len(there):
                raise
            self._settle(made_by, whole)

    def _settle(self, made_by: str, there: Sequence[Group]) -> None:
        if not there:
            return
        with connect(self.root) as connection:
            self._compare(connection, there, self.shards.get(made_by, ()))
            query = """SELECT number, count(*), count(*) FILTER (out), count(*) FILTER (removed),
                count(*) FILTER (twice) FROM rows GROUP BY number"""
            found = connection.execute(query).fetchall()
            counts = {number: tuple(some) for number, *some, _ in found}
            twice = sum(rows for number, *_, rows in found if there[number].folder.parent.name == ASIDE)
            self.done.let_go.update(self._removed(counts))
            aside = {n: count for n, count in counts.items() if there[n].folder.parent.name == ASIDE}
            self.done.back += sum(rows - out - removed for rows, out, removed in aside.values()) - twice
            self.done.twice += twice
            split = [n for n, group in enumerate(there) if not self._stays(group, *counts.get(n, (0, 0, 0)))]
            for parts in self._parts(connection, there, [n for n in split if counts.get(n, (0, 0, 0))[1]]):
                self._write(parts)
        for group in [there[number] for number in split if there[number].folder.parent.name == ASIDE]:
            if self.whole.get(group.path, True):
                group.drop()

    @cached_property
    def shards(self) -> dict[str, list[Path]]:
        """Return how rows were made -> the tables of the step's shards that hold such rows."""
        found: dict[str, list[Path]] = {}
        for record in records_of(self.root, self.step):
            if marked := stamped(self.root / file.path for file in record.files):
                found.setdefault(marked[1], []).append(marked[0])
        return found

    def _is_readable(self, group: Group) -> bool:
        readable = stamped([group.folder / group.table]) is not None
        if not readable:
            self.done.damaged.append(self._named(group))
        return readable

    def _named(self, group: Group) -> str:
        return f"{group.folder.relative_to(self.root).as_posix()}/{group.table}"

    def noted(self) -> Iterator[str]:
        """Yield the groups that workers found damaged."""
        marks = {path.name for path in (self.root / UNDER_WAY / self.step / DAMAGED).glob("*")}
        for place in (ASIDE, UNDER_WAY):
            yield from (self._named(g) for g in groups(self.root, place, self.step) if g.name in marks)

    def _compare(self, connection: Any, there: Sequence[Group], now: Sequence[Path]) -> None:
        """Make the table `rows` (number of the group, uid, removed, twice, out): out where the row is to be kept aside,
        twice where only other settings' rows stand for it.

        Of several copies one is kept: of a fetch the one with the most attempts, then the first.
        """
        digest = self._digest_in(there)
        made_from = digest or "''::BLOB"
        known = f"coalesce(reason NOT IN ({', '.join(map(repr, ASKED_AGAIN))}), true)"
        settled = f"bool_or({known} AND {digest} IS NOT NULL)" if digest else f"bool_or(last AND {known})"
        current = (
            f"SELECT uid, {made_from} AS made_from FROM {files_sql(now)}"
            if now
            else "SELECT ''::BLOB AS uid, ''::BLOB AS made_from"
        )
        selected = [self.root / record.files[0].path for record in records_of(self.root, "select")]
        excluded = f"UNION ALL SELECT uid FROM {files_sql(selected)} WHERE reason = 'removed'" if selected else ""
        # of a tombstone's row the ledger may hold no uid
        removed = f"SELECT uid FROM tombstones {excluded} UNION ALL {self._listed(connection, there)}"
        tombstones = read_tombstones(self.root)
        connection.register("tombstones", pa.table({"uid": tombstones.uids.cast(pa.binary())}))
        if len(tombstones.uid_digests):
            connection.register("digests", pa.table({"digest": tombstones.uid_digests}))
            removed += " UNION ALL SELECT uid FROM there WHERE sha256(lower(hex(uid))) IN (SELECT digest FROM digests)"
        note_stand_ins(connection, self.root, self.step, there, self.shards, self.stand_ins)
        connection.execute(f"""
            CREATE TEMP TABLE rows AS
            WITH there AS (
                SELECT file_index AS number, uid, {made_from} AS made_from, count(*) AS attempts, {settled} AS settled
                FROM {files_sql([group.folder / group.table for group in there])} GROUP BY ALL),
            fallen AS (
                SELECT number, uid,
                    row_number() OVER (PARTITION BY uid, made_from ORDER BY attempts DESC, number) AS nth
                FROM (SELECT * FROM there WHERE settled) ANTI JOIN ({current}) USING (uid, made_from)),
            removed AS (SELECT DISTINCT uid FROM ({removed}) WHERE uid IS NOT NULL)
            SELECT number, uid, coalesce(nth = 1, false) AND r.uid IS NOT NULL AS removed,
                coalesce(nth = 1, false) AND r.uid IS NULL AND s.uid IS NOT NULL AS twice,
                coalesce(nth = 1, false) AND r.uid IS NULL AND s.uid IS NULL AS out
            FROM there LEFT JOIN fallen USING (number, uid) LEFT JOIN removed r USING (uid)
                LEFT JOIN stood s USING (number, uid)""")

    def _digest_in(self, there: Sequence[Group]) -> str:
        """Return the column that says in these groups, all made in one way, what a row was made from: an older version
        of the step knew the picture's digest alone."""
        if not self.digest or all(has_columns(group.folder / group.table, self.digest) for group in there):
            return self.digest
        return "sha256"

    def _listed(self, connection: Any, there: Sequence[Group]) -> str:
        """Return the query for the uids of these groups that the lists name, or of which nothing says any more whether
        they do."""
        if self.lists is None:
            return "SELECT NULL::BLOB AS uid"
        if self.step == "fetch":
            uids = [uid for group in there for uid in self._named_in(group, self.lists)]
            connection.register("listed", pa.table({"uid": pa.array(uids, pa.binary())}))
            return "SELECT uid FROM listed"
        shards = [self.root / file.path for record in records_of(self.root, "fetch") for file in record.files]
        pairs = [path for path in shards if path.suffix == ".parquet" and path.parent.name == "pairs"]
        pairs += [group.pairs for place in (ASIDE, UNDER_WAY) for group in groups(self.root, place, "fetch")]
        pairs = [path for path in pairs if has_columns(path, "key")]
        known = f"SELECT unhex(key) AS uid FROM {files_sql(pairs)}" if pairs else "SELECT NULL::BLOB AS uid"
        rows = files_sql([group.folder / group.table for group in there])
        return f"SELECT uid FROM (SELECT DISTINCT uid FROM {rows}) ANTI JOIN ({known}) USING (uid)"

    def _named_in(self, group: Group, lists: Exclusions) -> Iterator[bytes]:
        """Yield the uids of a fetch's group that a list names; a damaged table names none, and is never used."""
        try:
            table = read_table(group.pairs, ["key", "url", "caption"]).combine_chunks()
        except (OSError, FormatError):
            return
        uid = pa.array([bytes.fromhex(key) for key in table["key"].to_pylist()], pa.binary(16))
        url, text = (pa.array(table[name].to_pylist(), pa.string()) for name in ("url", "caption"))
        yield from uid.filter(lists.hits({"uid": uid, "url": url, "text": text})).to_pylist()

    def _removed(self, counts: dict[int, tuple[int, ...]]) -> dict[str, int]:
        rows = sum(removed for _, _, removed in counts.values())
        why = "an exclusion list or a tombstone names them"
        if self.lists is not None and self.step != "fetch":
            why += ", or no picture of theirs is left to say so"
        return {why: rows} if rows else {}

    def _stays(self, group: Group, rows: int, out: int, removed: int) -> bool:
        """Tell whether a group is aside as it is, all of its rows out; one of the plan before is linked there."""
        if not rows or out < rows or removed:
            return False
        if group.folder.parent.name == UNDER_WAY:
            folder = self.root / ASIDE / self.step
            for file in group.files:
                link(group.folder / file.path, folder / file.path)
            Group(folder, group.name, group.step, group.made_by, rows, group.table, group.files).write()
            self.done.rows += rows
        return True

    def _parts(self, connection: Any, there: Sequence[Group], numbers: Sequence[int]) -> Iterator[Parts]:
        """Yield the rows that are out of these groups, at most MOST_ROWS at a time and each uid once, in the order of
        the groups. Damaged groups are passed over."""
        parts: dict[int, set[bytes]] = {}
        taken: set[bytes] = set()
        connection.register("split", pa.table({"number": pa.array(numbers, pa.uint64())}))
        query = "SELECT number, uid FROM rows SEMI JOIN split USING (number) WHERE out ORDER BY number, uid"
        for batch in connection.execute(query).to_arrow_reader(MOST_ROWS):
            for number, uid in zip(batch["number"].to_pylist(), batch["uid"].to_pylist(), strict=True):
                if not self._is_whole(there[number]):
                    continue
                if len(taken) == MOST_ROWS or uid in taken:
                    yield [(there[n], frozenset(uids)) for n, uids in parts.items()]
                    parts, taken = {}, set()
                parts.setdefault(number, set()).add(uid)
                taken.add(uid)
        if parts:
            yield [(there[n], frozenset(uids)) for n, uids in parts.items()]

    def _is_whole(self, group: Group) -> bool:
        """Tell whether a group is as its record says; each is read once."""
        if group.path not in self.whole:
            damage = group.damaged()
            self.whole[group.path] = not damage
            self.done.damaged += [f"{group.folder.relative_to(self.root).as_posix()}/{name}" for name in damage]
        return self.whole[group.path]

    def _write(self, parts: Parts) -> None:
        put_together(self.root / ASIDE / self.step, parts)
        self.done.rows += sum(len(uids) for group, uids in parts if group.folder.parent.name == UNDER_WAY)
