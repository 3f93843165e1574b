"""Let only records of what is planned now count: a shard that another run wrote meanwhile is made again, or named.

A token keeps earlier runs out of the folder (run_token.py); this is for what comes all the same: a worker that looked
at the token just before the folder changed hands, or a second machine on a disk whose locks do not reach this one.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence

from manifests.journal import ShardRecord
from manifests.reasons import ASKED_AGAIN
from pipeline.execution.errors import RunFailed
from pipeline.execution.step import Do, Step, Unit

ROUNDS = 3
"""Times that units are done before the run gives up on a folder in which somebody else writes."""
REMEDY = (
    "Find what writes there, such as a job that was left on a cluster or a run on another machine, and end it, then run"
    " the same command again: they are made again"
)
Keys = Mapping[str, str]
"""Unit -> the key that it is planned under."""


def do_planned(step: Step, units: Sequence[Unit], pending: Sequence[Unit], do: Do) -> None:
    """Do pending units, and again those of all `units` whose record has another key by then, or is gone.

    Raises RunFailed where some never keep theirs, and whatever `do` raises.
    """
    _try_again(step, pending)
    for _ in range(ROUNDS if pending else 0):
        do(step, pending)
        if not (pending := _strayed(step.journal.records(), units)):
            return
        print(
            f"warning: {step.name}: the records of {len(pending):,} shards, such as {pending[0].name}, are not of this"
            f" run: something else writes in {step.root}; they are made again",
            file=sys.stderr,
        )
    if pending:
        raise RunFailed(_says(step.name, [unit.name for unit in pending], f"in {step.root}"))


def _try_again(step: Step, pending: Sequence[Unit]) -> None:
    """Drop the records of an earlier run that did not come to its step's end and gave rows up: they are tried again."""
    written = step.journal.written() if pending else {}
    for unit in pending:
        record = written.get(unit.name)
        if record is not None and record.key == unit.key and not record.dropped.keys().isdisjoint(ASKED_AGAIN):
            step.journal.path(unit.name).unlink(missing_ok=True)


def _strayed(records: Mapping[str, ShardRecord], units: Sequence[Unit]) -> list[Unit]:
    found = ((unit, records.get(unit.name)) for unit in units)
    return [unit for unit, record in found if record is None or record.key != unit.key]


def need_planned(step: str, records: Iterable[ShardRecord], keys: Keys) -> None:
    """Raise RunFailed unless a step's records are those of the units that were planned, one each."""
    found = {record.shard: record.key for record in records}
    wrong = sorted(name for name in {*found, *keys} if found.get(name) != keys.get(name))
    if wrong:
        raise RunFailed(_says(step, wrong, "since its units were done"))


def _says(step: str, names: Sequence[str], where: str) -> str:
    return (
        f"{step}: the records of {len(names):,} shards ({', '.join(names[:5])}{', …' if len(names) > 5 else ''}) are"
        f" not of this run: something else wrote {where}; nothing of it is in a manifest. {REMEDY}"
    )
