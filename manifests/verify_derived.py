"""Verify what derived steps made: their files are in no manifest, and come from the run's own."""

from manifests.findings import Records
from manifests.layout import SCRATCH


def unrecorded(records: Records, step: str, shard: str) -> tuple[str, str]:
    """Return (kind, what to say) of a derived step's file that no whole record names."""
    record = f"manifests/journal/{step}/{shard}.json"
    if (records.root / SCRATCH).exists() and not records.unread(
        step
    ):  # a run is making it, or was killed while it made it
        return "leftover", "no record names it yet: the next run makes it, or makes it again"
    if not records.found(record):
        records.find(record, "missing", "not there, though its shard's file is", step, shard)
    return "unproved", f"its record, {record}, is lost: nothing else says what its bytes must be"
