"""Cut the rows that a step works on into shards, as small tables written before any worker starts."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from manifests.checksums import sha256_file
from manifests.files import write_json, write_table
from manifests.layout import PLAN


def plan_folder(root: Path, step: str) -> Path:
    """Return the folder of a step's planned shards."""
    return root / "manifests" / "plan" / step


def write_plan(root: Path, step: str, tables: Iterable[tuple[str, pa.Table]]) -> list[tuple[str, Path, str]]:
    """Write the planned tables, drop those of an earlier plan, and return (name, path, sha256) of each."""
    folder = plan_folder(root, step)
    written = []
    for name, table in tables:
        path = folder / f"{name}.parquet"
        write_table(path, table)
        written.append((name, path, sha256_file(path)))
    keep = {path for _, path, _ in written}
    for path in folder.glob("*.parquet"):
        if path not in keep:
            path.unlink()
    note_plan(folder, {path.name: sha256 for _, path, sha256 in written})
    return written


def note_plan(folder: Path, files: dict[str, str]) -> None:
    """Write what a step's plan holds: name -> sha256 of its tables, in order."""
    write_json(folder / PLAN, {"step": folder.name, "files": files}, sealed=True)
