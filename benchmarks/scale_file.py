"""The file of costs that bench_scale.py writes: its lines and table for people, and laws of it held against it."""

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DONE = "done"
"""Kind of the line that says that nothing of a size is left to measure."""


def line(one: dict[str, Any]) -> str:
    """Return one measurement for people."""
    name = f"{one['kind']} {one['name']}" + (f", {one['workers']} workers" if one["workers"] > 1 else "")
    if one.get("failed"):
        return f"{name:<32} FAILED: {one['failed']}"
    return (
        f"{name:<32}{one['cpu_s']:>9.1f} CPU s{one['wall_s']:>9.1f} s{one['peak_mib']:>8.0f} MiB"
        f"{one['written'] / 1e6:>10.1f} MB written{one['spilled'] / 1e6:>9.1f} MB spilled"
    )


def table(known: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a Markdown table: a row per step and question, a column per size: CPU s / wall s / peak MiB / MB written /
    MB spilled, and of several workers how many times faster than one they were by the clock."""
    plain = {
        (one["kind"], one["name"], one["workers"], one["input"]): one
        for one in known
        if one["mode"] == "rows" and one["kind"] != DONE
    }
    sizes = sorted({size for *_, size in plain})
    yield "| CPU s / wall s / peak MiB / MB written / MB spilled | " + " | ".join(f"{size:,}" for size in sizes) + " |"
    yield "|---" * (len(sizes) + 1) + "|"
    for kind, name, workers in dict.fromkeys(key[:3] for key in plain):
        cells = []
        for size in sizes:
            one, alone = plain.get((kind, name, workers, size)), plain.get((kind, name, 1, size), {})
            cells.append(_cell(one, alone if workers > 1 else {}) if one else "")
        several = f", {workers} workers" if workers > 1 else ""
        yield f"| {kind} {name}{several} | " + " | ".join(cells) + " |"


def _cell(one: dict[str, Any], alone: dict[str, Any]) -> str:
    if one.get("failed"):
        return "failed"
    figures = f"{one['cpu_s']:.1f} / {one['wall_s']:.1f} / {one['peak_mib']:.0f}"
    faster = f", {alone['wall_s'] / one['wall_s']:.2f}x" if alone.get("wall_s") and one["wall_s"] else ""
    return f"{figures} / {one['written'] / 1e6:.0f} / {one['spilled'] / 1e6:.0f}{faster}"


def write(path: Path, known: list[dict[str, Any]]) -> None:
    """Write the file of costs."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 1024**3),
        "machine": platform.machine(),
    }
    temporary = path.with_name(f"{path.name}.tmp")
    held = json.loads(path.read_text()) if path.exists() else {}  # rates that somebody has put there
    temporary.write_text(json.dumps({**held, "format": 1, "machine": machine, "measured": known}, indent=1))
    temporary.replace(path)


def read(path: Path) -> list[dict[str, Any]]:
    """Return what a file of costs holds; nothing where there is none."""
    if not path.exists():
        return []
    known: list[dict[str, Any]] = json.loads(path.read_text())["measured"]
    return [one for one in known if not one.get("failed")]


def predict(path: Path, rows: int) -> int:
    """Print what smaller runs foretell of the run of so many rows, and what it took; return 1 where they are far
    off."""
    from pipeline.analysis.foretold import hold, lines

    found = hold(path, rows)
    print(f"foretold / measured at {rows:,} rows, from {path}")
    print("\n".join(lines(found)))
    return int(not all(one.close for one in found))
