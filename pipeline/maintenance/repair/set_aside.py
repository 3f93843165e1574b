"""Drop what was set aside and is damaged: nothing says any more what it was; a later plan asks or computes again."""

from pathlib import Path

from manifests.aside import ASIDE, read_group
from manifests.files import FormatError
from pipeline.maintenance.repair.session import Repair

WHY = "a plan that wants its rows again asks or computes them anew"


def drop_damaged(work: Repair) -> None:
    """Drop each group of `aside/` of which the record or a file is damaged or missing; say how many rows went."""
    names: dict[Path, list[str]] = {}
    for finding in work.open(ASIDE):
        folder = (work.root / finding.path).parent
        names.setdefault(folder / f"{finding.shard}.json", []).append(finding.path)
    for path, found in names.items():
        try:
            group = read_group(path)
            group.drop()
            rows = f"its {group.rows:,} rows"
        except (OSError, FormatError):
            rows = "what it was the record of"
            for file in [path, *path.parent.glob(f"{path.stem}-*")]:
                file.unlink(missing_ok=True)
        for name in found:
            work.repaired[name] = f"dropped with {rows}: {WHY}"
