"""Keep the progress lines of a training run: metrics.jsonl, a JSON object a line."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manifests.files import FormatError, parsing, write_bytes, writing
from manifests.store import is_remote, scratch_of

NAME = "metrics.jsonl"


class Metrics:
    """RUN/train/TIER/metrics.jsonl, to which lines are appended.

    Objects of a store cannot grow: there lines gather in a local file, which is put into the store with each
    checkpoint. A process that is killed loses those of steps that are taken again anyway.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        """`folder` lies in the run folder `root`."""
        self.path = folder / NAME
        self.local = scratch_of(root).joinpath(*self.path.parts[len(root.parts) :])

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line."""
        self.local.parent.mkdir(parents=True, exist_ok=True)
        with open(self.local, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def keep_until(self, step: int) -> None:
        """Drop the lines of steps that will be taken again, and what is no line."""
        if is_remote(self.path):
            self.local.unlink(missing_ok=True)  # an earlier process's, or another machine's is newer
        if self.path.is_file():
            kept = []
            for line in self.path.read_bytes().decode("utf-8", "replace").splitlines():
                with contextlib.suppress(FormatError), parsing(self.path, "a line has no step"):
                    kept += [line] if json.loads(line)["step"] <= step else []
            write_bytes(self.local, "".join(f"{line}\n" for line in kept).encode())

    def summary(self) -> list[str]:
        """Return what the lines say of the run: first, last and best losses, skipped steps, speed."""
        lines = [json.loads(line) for line in self.local.read_text().splitlines()] if self.local.is_file() else []
        trained = [line for line in lines if line.get("loss") is not None]
        if not trained:
            return []
        first, last = trained[0], trained[-1]
        said = [f"in all: loss {first['loss']:.3f} at step {first['step']:,}, {last['loss']:.3f} at {last['step']:,}"]
        measured = [line for line in lines if "validation_loss" in line]
        if measured:
            best = min(measured, key=lambda line: float(line["validation_loss"]))
            end, least = measured[-1]["validation_loss"], best["validation_loss"]
            said.append(f"  validation {end:.3f} at the end, {least:.3f} at best (step {best['step']:,})")
        rates = sorted(line["samples_per_s"] for line in trained if line.get("samples_per_s"))
        speed = f"{rates[len(rates) // 2]:,.1f} samples/s (median), " if rates else ""
        waits = [line["loader_share"] for line in trained if line.get("loader_share") is not None]
        waited = f"{sum(waits) / len(waits):.1%} of the time waiting for the loader, " if waits else ""
        return [*said, f"  {speed}{waited}{last.get('skipped', 0):,} steps skipped"]

    def publish(self) -> None:
        """Put the lines so far where the run is."""
        if is_remote(self.path) and self.local.is_file():
            with writing(self.path) as temporary:
                shutil.copyfile(self.local, temporary)
