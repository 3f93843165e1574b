"""Keep the ledger of fetch attempts: a row for each, those of earlier invocations too, and what is carried over from
them."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.fetch.digests import Digests
from filters.images.decode import Stored
from manifests.files import digest_of, read_table, write_table
from manifests.journal import FileRecord
from manifests.query import FILES, batches, connect, files_sql
from manifests.reasons import is_among
from manifests.schema import DIGESTS
from manifests.tables import ATTEMPTS
from pipeline.execution.reuse import earlier_tables, stamp
from pipeline.execution.step import Unit
from pipeline.steps.fetch.limits import SAME, Terms
from pipeline.steps.fetch.pairs import Attempt, Result, Spool, earlier_pictures

REFUSING = ("robots", "opted_out")
"""Reasons of attempts that have a receipt."""
LEDGER = "-ledger.parquet"
"""End of the name of a ledger that was set aside."""


def attempts_table(rows: list[dict[str, Any]], results: Mapping[bytes, Result]) -> pa.Table:
    """Return the ledger's rows in the planned order, the attempts of each row in theirs."""
    entries = [
        {
            "uid": row["uid"],
            "attempt": number,
            "last": number == len(results[row["uid"]].attempts),
            "http_status": attempt.http_status,
            "reason": attempt.reason,
            "rule": attempt.rule,
            "value": attempt.value,
            **{name: _bytes(getattr(attempt.digests, name)) for name in DIGESTS},
        }
        for row in rows
        for number, attempt in enumerate(results[row["uid"]].attempts, 1)
    ]
    return pa.Table.from_pylist(entries, schema=ATTEMPTS)


def _bytes(digits: str | None) -> bytes | None:
    return None if digits is None else bytes.fromhex(digits)


def _attempt(row: dict[str, Any]) -> Attempt:
    """Return the attempt of a row of the ledger; one of before says nothing of digests."""
    digests = (row.get(name) for name in DIGESTS)
    said = Digests(*(None if value is None else value.hex() for value in digests))
    return Attempt(row["http_status"], row["reason"], row["rule"], row["value"], said)


def write_ledger(root: Path, unit: Unit, rows: list[dict[str, Any]], results: Mapping[bytes, Result]) -> FileRecord:
    """Write `ledger/fetch/NAME.parquet`. What counts in digests are the last attempts: how many there were before is
    the web's mood."""
    path = root / "ledger" / "fetch" / f"{unit.name}.parquet"
    lacking = set(DIGESTS) - set(unit.reads.get("digests", DIGESTS))
    table = attempts_table(rows, results).drop_columns(sorted(lacking))
    write_table(path, stamp(table, unit.reads["made_by"]))
    last = [results[row["uid"]].last for row in rows]
    told = [(row["uid"], a.http_status, a.reason, a.rule, a.value) for row, a in zip(rows, last, strict=True)]
    return replace(FileRecord.of(root, path), counted=_digest_of(told))


def _digest_of(told: Iterable[tuple[bytes, int | None, str | None, str | None, str | None]]) -> str:
    """Return the digest of (uid, status, reason, rule, value) of each row: whether a status came before time was up is
    the web's mood too."""
    return digest_of(
        [[uid.hex(), None if reason == "timeout" else status, reason, *rest] for uid, status, reason, *rest in told]
    )


def counted_again(root: Path, file: FileRecord) -> FileRecord:
    """Return the record of a ledger that rows were taken out of, with what counts of it now."""
    table = read_table(root / file.path)
    last = table.filter(table["last"]).to_pylist()
    told = [(row["uid"], row["http_status"], row["reason"], row["rule"], row["value"]) for row in last]
    return replace(file, counted=_digest_of(told))


def refusals(root: Path, ledgers: Sequence[Path]) -> dict[str, int]:
    """Return signal -> rows that were refused by it, from the receipts of last attempts; in order of names."""
    if not ledgers:
        return {}
    counts: Counter[str] = Counter()
    with connect(root) as connection:
        for some in batches(ledgers, FILES):
            query = (
                f"SELECT rule, count(*) FROM {files_sql(some)} WHERE last AND rule IS NOT NULL"
                " AND reason <> 'removed' GROUP BY 1"
            )
            counts.update(dict(connection.execute(query).fetchall()))
    return dict(sorted(counts.items()))


@dataclass(frozen=True)
class Past:
    """What is known of a row from before: its attempts, the ledger they stand in, whether the last one is among them,
    and what holds of it where it was made under other limits. `others`: what was made of it under yet other limits,
    for where those of this one do not let it stand."""

    attempts: tuple[Attempt, ...]
    ledger: Path
    settled: bool = True
    terms: Terms = SAME
    others: tuple["Past", ...] = ()

    def standing(self, again: Collection[str]) -> "Past | None":
        """Return the first that may stand under the limits of now; None where the row is to be asked again. What is
        asked again by the user's own word (`again`) is not looked for under other limits."""
        if not self.settled or is_among(self.attempts[-1].reason, again):
            return None
        if not is_among(self.attempts[-1].reason, self.terms.again):
            return self
        following = self.following()
        return following.standing(again) if following else None

    def following(self) -> "Past | None":
        """Return what is known under the next limits."""
        return replace(self.others[0], others=self.others[1:]) if self.others else None


def history(root: Path, made_by: Mapping[str, Terms], uids: Collection[bytes]) -> dict[bytes, Past]:
    """Return uid -> its past, from what was set aside and made in one of these ways: the first that knows it counts,
    and after it the others."""
    found = dict[bytes, list[Past]]()
    for key, terms in made_by.items():
        alike = dict[bytes, Past]()
        tables = earlier_tables(root, "fetch", key, uids)
        for uid, past in chain.from_iterable(pasts(table, path, terms).items() for path, table in tables):
            if uid not in alike or len(past.attempts) > len(alike[uid].attempts):
                alike[uid] = past
        for uid, past in alike.items():
            found.setdefault(uid, []).append(past)
    return {uid: replace(first, others=tuple(others)) for uid, (first, *others) in found.items()}


def pasts(table: pa.Table, path: Path, terms: Terms) -> dict[bytes, Past]:
    """Return uid -> its past of a ledger's rows."""
    attempts: dict[bytes, list[Attempt]] = {}
    settled = set()
    for row in table.to_pylist():
        settled.update([row["uid"]] if row["last"] else [])
        attempts.setdefault(row["uid"], []).append(_attempt(row))
    return {uid: Past(tuple(made), path, uid in settled, terms) for uid, made in attempts.items()}


def _tar_of(ledger: Path) -> Path:
    """Return the tar beside a ledger: of a group that was set aside, or of a shard of the run."""
    if ledger.name.endswith(LEDGER):
        return ledger.with_name(f"{ledger.name.removesuffix(LEDGER)}-pairs.tar")
    return ledger.parents[2] / "pairs" / f"{ledger.stem}.tar"


def carried(past: Mapping[bytes, Past], again: Collection[str], spool: Spool) -> dict[bytes, Result]:
    """Return the rows that are not asked again: their pictures, or why there is none. A row whose worker died is always
    asked again, and one of which the limits of now say otherwise."""
    asked, results = {*again, "worker_died"}, dict[bytes, Result]()
    rest = dict(past)
    while settled := {uid: known for uid, one in rest.items() if (known := one.standing(asked))}:
        results |= _carried(settled, asked, spool)
        following = {uid: known.following() for uid, known in settled.items() if uid not in results}
        rest = {uid: known for uid, known in following.items() if known}
    return results


def _carried(settled: Mapping[bytes, Past], asked: Collection[str], spool: Spool) -> dict[bytes, Result]:
    """Return the rows whose picture is there and keeps the limits of now, and those that have none."""
    results = {uid: Result(known.attempts) for uid, known in settled.items() if known.attempts[-1].reason}
    pictures = {uid: known for uid, known in settled.items() if uid not in results}
    for ledger in sorted({known.ledger for known in pictures.values()}):
        tar = _tar_of(ledger)
        wanted = [uid for uid, known in pictures.items() if known.ledger == ledger]
        for uid, jpeg, stored in earlier_pictures(tar, wanted) if tar.is_file() else ():
            result = _as_now(pictures[uid], jpeg, stored, spool)
            if uid not in results and result is not None and result.last.reason not in asked:
                results[uid] = result
    return results


def _as_now(past: Past, jpeg: bytes, stored: Stored, spool: Spool) -> Result | None:
    """Return a picture of before as the limits of now leave it; None where they do not say."""
    last = past.attempts[-1]
    if past.terms != SAME:
        held = past.terms.holds(last, stored, jpeg, hashlib.sha256(jpeg).hexdigest())
        if held is None:
            return None
        if held.reason:
            return Result((*past.attempts[:-1], held))
    return Result(past.attempts, stored, *spool.put(jpeg))
