"""Look at, and take apart, the records of a run's shards wherever they lie."""

from pathlib import Path

from manifests.journal import Journal, records_of


def steps_of(root: Path) -> list[str]:
    """Return the steps that have a journal in a run folder."""
    return sorted(path.name for path in (root / "manifests" / "journal").glob("*/"))


def count(root: Path) -> int:
    """Return how many records, and notes of how a step was done, the journals of a run hold."""
    notes = len(list(root.glob("manifests/journal/*/step.json")))
    return notes + sum(len(records_of(root, step)) for step in steps_of(root))


def spread(root: Path, *steps: str) -> Path:
    """Let each record of these steps (none: all) be a JSON again, as while a step is under way; return the folder."""
    for step in steps or steps_of(root):
        journal = Journal(root, step)
        stored = journal.compacted()
        for record in stored.values():
            if not journal.path(record.shard).exists():
                journal.record(record)
        for path in journal.tables:
            path.unlink(missing_ok=True)
    return root


def lose(root: Path, step: str, *shards: str) -> None:
    """Take the records of these shards away."""
    Journal(root, step).forget(shards)
