"""Write the records of removals again where what they speak of proves itself; say what only a copy of the run can bring
back."""

from manifests.lineage import FOLDER, note_removal, removals
from manifests.tombstones import NAME, STEP, TOMBSTONES, note_tombstones
from manifests.weights import sha256_file
from pipeline.maintenance.repair.session import Repair

COPY = "is noted nowhere else: restore it from a copy of the run"


def mend_removals(work: Repair) -> None:
    """Journal again what a removal left: its record is sealed, and says the sha256 of the tombstones."""
    for finding in [finding for finding in work.open() if finding.path.startswith(f"manifests/journal/{STEP}/")]:
        if finding.shard == NAME:
            _tombstones(work, finding.path)
        elif (path := work.copy / "manifests" / FOLDER / f"{finding.shard}.json").exists():
            note_removal(work.copy, path)
            work.give(finding.path, f"from manifests/{FOLDER}/{finding.shard}.json")
    names = [finding.path for finding in work.open()]
    work.leave([name for name in names if name.startswith(f"manifests/{FOLDER}/")], f"what the removal changed {COPY}")
    work.leave([TOMBSTONES], f"what was removed {COPY}")


def _tombstones(work: Repair, record: str) -> None:
    said = [entry["tombstones_sha256"] for entry in removals(work.copy) if "tombstones_sha256" in entry]
    if TOMBSTONES in work.found or not said or sha256_file(work.copy / TOMBSTONES) != said[-1]:
        work.leave([record], f"nothing proves that {TOMBSTONES} is as it was; restore both from a copy of the run")
        return
    note_tombstones(work.copy)
    work.give(record, f"from {TOMBSTONES}, as the last removal's record proves")
