"""Bring the table of a step's records back, from its copy or from the records that were made again."""

from manifests.files import write_bytes
from manifests.journal import Journal
from pipeline.execution.step import Step
from pipeline.maintenance.repair.session import Repair

NOTHING = "none of its records could be made again: remove it and its copy, and pipeline run begins the step anew"


def mend_journal(work: Repair, step: Step) -> None:
    """Take a table of records from its copy, or the copy from it."""
    names = _names(work, step)
    broken = [name for name in names if work.needs(name)]
    stored = Journal(work.root, step.name).compacted() if broken else {}
    if not stored:
        return
    whole = [name for name in names if name not in broken]
    step.journal.write(stored)
    for name in broken:
        if whole:
            write_bytes(work.copy / name, (work.root / whole[0]).read_bytes())
        work.give(name, f"from {whole[0]}" if whole else "from its records, which can be read")
    work.restore(names)


def end_journal(work: Repair, step: Step) -> None:
    """Where a table and its copy were lost both, gather the records that were made again, and JSONs, in new ones."""
    names = _names(work, step)
    if not all(work.needs(name) for name in names):
        return
    step.journal.compact()
    if step.journal.compacted():
        for name in names:
            work.give(name, "from the records of its shards, made again")
    work.leave(names, NOTHING)


def _names(work: Repair, step: Step) -> list[str]:
    return [path.relative_to(work.copy).as_posix() for path in step.journal.tables]
