"""Make the damaged files of derived steps again in the copy, as a run would, and take them with their records."""

from manifests.checksums import sha256_file
from manifests.journal import Journal
from pipeline.execution.shuffle import Derived, needs_of
from pipeline.execution.step import Step
from pipeline.maintenance.repair.journals import end_journal, mend_journal
from pipeline.maintenance.repair.session import UNDONE, Repair

RECORDS = "manifests/journal/"


def mend_derived(work: Repair, step: Step) -> None:
    """Make what a step plans from again where it is damaged or lost."""
    for need in needs_of(step):
        mend_derived(work, need)
        mend_journal(work, need)
        if names := [finding.path for finding in work.open(need.name)]:
            try:
                need.make()
            except UNDONE as error:
                work.leave(names, f"what it is made from cannot be read: {work.line(error)}")
                continue
            for finding in sorted(work.open(need.name), key=lambda finding: finding.path.endswith(".json")):
                if finding.shard:
                    _take(work, need, finding.path, finding.shard)
            end_journal(work, need)


def _take(work: Repair, step: Derived, path: str, shard: str) -> None:
    """Take a file that is what its record says, or a record of files that are what the run holds."""
    before, now = Journal(work.root, step.name).get(shard), Journal(work.copy, step.name).get(shard)
    if now is not None and path.startswith(RECORDS):
        step.journal.record(now)  # it may lie in the table alone
    if now is None or not (work.copy / path).exists():
        work.leave([path], f"{step.name} makes no such file now; the next run goes on without it")
        return
    known = {file.path: file.sha256 for file in (before or now).files}
    others = any(file.path != path and work.sha256(file.path) != file.sha256 for file in now.files)
    if known.get(path, "") == sha256_file(work.copy / path) or (path not in known and not others):
        work.give(path, f"{step.name} made it again")
    else:
        work.leave([path], "made again it is not what it was: the run has gone on since; pipeline run makes it anew")
