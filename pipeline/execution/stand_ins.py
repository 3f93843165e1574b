"""Tell which rows of a fetch that were made under other settings stand for what lies aside: the same answer, held in a
shard or aside already, that would be taken over if the settings of before came back. No second copy of it is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.aside import ASIDE, Group, groups
from manifests.files import FormatError, has_columns
from manifests.journal import records_of
from manifests.query import files_sql
from manifests.reasons import ASKED_AGAIN


@dataclass(frozen=True)
class StandIn:
    """Which rows that were made under some settings stand for the same answers under others: none with these reasons;
    `as_received`: of pictures only those that were stored as they came, since how many bytes came is not known of
    others."""

    again: frozenset[str] = frozenset()
    as_received: bool = False


StandIns = Callable[[str], Mapping[str, StandIn]]
"""Returns, of the digest of how rows were made, the digests of how rows were made that stand for them."""


def note_stand_ins(
    connection: Any, root: Path, step: str, there: Sequence[Group], shards: Mapping[str, list[Path]], by: StandIns
) -> None:
    """Make the table `stood` (number of the group, uid): rows of these groups, made in one way, whose answer the step's
    shards or other groups aside hold too, so that it may go here.

    `shards`: how rows were made -> ledgers of the shards. A table that cannot be read stands for nothing.
    """
    connection.execute("CREATE TEMP TABLE stood (number UBIGINT, uid BLOB)")
    own = [group.pairs for group in there]
    found = by(there[0].made_by)
    if not found or not all(has_columns(path, "sha256") for path in own):
        return
    aside = [group for group in groups(root, ASIDE, step) if group.made_by in found and _is_there(group)]
    for made_by, stand_in in found.items():
        tables = _of_shards(root, step, shards.get(made_by, ()))
        tables += [(group.folder / group.table, group.pairs) for group in aside if group.made_by == made_by]
        needed = "source_sha256" if stand_in.as_received else "sha256"
        if tables := [one for one in tables if has_columns(one[0], "last") and has_columns(one[1], needed)]:
            try:
                connection.execute(_query(there, own, tables, stand_in))
            except FormatError:  # a table whose footer is whole and whose pages are not: what uses it names it
                continue


def _query(there: Sequence[Group], own: list[Path], tables: Sequence[tuple[Path, Path]], stand_in: StandIn) -> str:
    again = ", ".join(f"'{reason}'" for reason in sorted({*stand_in.again, *ASKED_AGAIN}))
    came = "AND sha256 = source_sha256" if stand_in.as_received else ""
    answer = "uid, http_status, reason, rule, value"
    return f"""
        INSERT INTO stood
        WITH kept AS (
            SELECT file_index AS number, {answer} FROM {files_sql([group.folder / group.table for group in there])}
            WHERE last),
        pictures AS (SELECT file_index AS number, unhex(key) AS uid, sha256 FROM {files_sql(own)}),
        held AS (
            SELECT {answer} FROM {files_sql([ledger for ledger, _ in tables])}
            WHERE last AND coalesce(reason NOT IN ({again}), true)),
        held_pictures AS (
            SELECT unhex(key) AS uid, sha256 FROM {files_sql([pairs for _, pairs in tables])}
            WHERE sha256 IS NOT NULL {came})
        SELECT DISTINCT k.number, k.uid
        FROM kept k JOIN held h ON k.uid = h.uid
            AND (k.http_status, k.reason, k.rule, k.value)
                IS NOT DISTINCT FROM (h.http_status, h.reason, h.rule, h.value)
        LEFT JOIN pictures p ON p.number = k.number AND p.uid = k.uid
        LEFT JOIN held_pictures q ON q.uid = k.uid AND q.sha256 = p.sha256
        WHERE k.reason IS NOT NULL OR q.sha256 IS NOT NULL"""


def _of_shards(root: Path, step: str, ledgers: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return (ledger, pairs) of the step's shards whose stamped table is one of these."""
    wanted, found = set(ledgers), []
    for record in records_of(root, step) if wanted else ():
        tables = [root / file.path for file in record.files if file.path.endswith(".parquet")]
        pairs = [path for path in tables if path.parent.name == "pairs"]
        found += [(path, pairs[0]) for path in tables if pairs and path in wanted]
    return found


def _is_there(group: Group) -> bool:
    """Tell whether a group's files are there, of their recorded sizes."""
    return all(file.is_whole(group.folder) for file in group.files)
