"""Place lines of (x, y) points on a drawing surface: the numbers that the template of the curve writes as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

Point = tuple[float, float]
GRID_PARTS = 4
HEADROOM = 1.04


@dataclass(frozen=True)
class GridLine:
    """A line across the drawing at height `y`, which stands for `value`."""

    y: float
    value: float


@dataclass(frozen=True)
class Curve:
    """A drawn line in the units of a surface of `width` x `height`, y downwards, and a second one, `measured`, which
    may be empty. `start` to `stop` is the span of x."""

    width: ClassVar[int] = 1000
    height: ClassVar[int] = 280
    left: ClassVar[int] = 46
    right: ClassVar[int] = 70
    bottom: ClassVar[int] = 30

    points: tuple[Point, ...]
    grid: tuple[GridLine, ...]
    start: float
    stop: float
    last: float
    """The value of the last point."""
    measured: tuple[Point, ...] = ()
    last_measured: float | None = None
    """The value of the second line's last point."""

    @property
    def end(self) -> Point:
        """Return where the line ends."""
        return self.points[-1]


def draw_curve(points: Sequence[Point], measured: Sequence[Point] = ()) -> Curve:
    """Return the curve of these points, y from 0 to a little above the highest value of both lines. Raises ValueError
    where the first has no point."""
    if not points:
        raise ValueError("the line is empty, wanted one point at least")
    xs, ys = zip(*points, *measured, strict=True)
    low, high = min([0.0, *ys]), max([0.0, *ys]) * HEADROOM or 1.0
    start, span_x, span_y = min(xs), (max(xs) - min(xs)) or 1.0, (high - low) or 1.0
    across, down = Curve.width - Curve.left - Curve.right, Curve.height - Curve.bottom

    def place(x: float, y: float) -> Point:
        return Curve.left + (x - start) / span_x * across, down * (1 - (y - low) / span_y)

    values = [low + span_y * part / GRID_PARTS for part in range(GRID_PARTS + 1)]
    grid = tuple(GridLine(place(start, value)[1], value) for value in values)
    return Curve(
        points=tuple(place(*point) for point in points),
        grid=grid,
        start=start,
        stop=max(xs),
        last=points[-1][1],
        measured=tuple(place(*point) for point in measured),
        last_measured=measured[-1][1] if measured else None,
    )
