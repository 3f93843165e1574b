"""Read what a run folder holds of codes and training: loss curves, what was memorised, sheets of pictures."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.report.pictures import Picture, shrunk

CURVE_POINTS = 400
SHEETS = 6
PICTURE_BYTES = 600_000
"""A larger sheet is shown as a JPEG of WIDEST pixels."""
WIDEST = 1600


@dataclass(frozen=True)
class LossCurve:
    """The loss of one training run: (step, loss), about CURVE_POINTS to twice as many of them; `measured`: likewise of
    the pictures that are not trained on."""

    tier: str
    points: tuple[tuple[float, float], ...]
    measured: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Memorised:
    """How many of `pictures` training captions gave back a sample nearest to their own picture; shares of 1."""

    tier: str
    pictures: int
    top1: float
    chance: float
    says: str


@dataclass(frozen=True)
class Training:
    """What the later stages left. Empty parts are stages that have not run."""

    curves: tuple[LossCurve, ...] = ()
    memorised: tuple[Memorised, ...] = ()
    sheets: tuple[Picture, ...] = ()


def read_training(root: Path) -> Training:
    """Return what lies in `codes/` and `train/` of a run folder; files that cannot be read are left out."""
    curves = [
        LossCurve(path.parent.name, _thinned(path, "loss"), _thinned(path, "validation_loss"))
        for path in sorted((root / "train").rglob("metrics.jsonl"))
    ]
    sheets = [*sorted((root / "codes").rglob("*.png")), *sorted((root / "train").rglob("memorised.png"))]
    return Training(
        tuple(curve for curve in curves if curve.points),
        tuple(_memorised(root)),
        tuple(_sheets(root, sheets[:SHEETS])),
    )


def _thinned(path: Path, name: str) -> tuple[tuple[float, float], ...]:
    points = list(_points(path, name))
    return tuple(points[:: max(1, len(points) // CURVE_POINTS)])


def _points(path: Path, name: str) -> Iterator[tuple[float, float]]:
    """Yield (step, figure) of each whole line that has a figure of this name."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                yield float(entry["step"]), float(entry[name])


def _memorised(root: Path) -> Iterator[Memorised]:
    for path in sorted((root / "train").rglob("memorised.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            entry: Mapping[str, Any] = json.loads(path.read_bytes())
            shares = float(entry["top1"]), float(entry["chance_top1"])
            yield Memorised(path.parent.name, int(entry["pictures"]), *shares, str(entry.get("says", "")))


def _sheets(root: Path, paths: list[Path]) -> Iterator[Picture]:
    for path in paths:
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            name = path.relative_to(root).as_posix()
            yield Picture(data if len(data) < PICTURE_BYTES else shrunk(data, WIDEST), name)
