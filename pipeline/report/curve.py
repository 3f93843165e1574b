"""Place a line of (x, y) points on a drawing surface: the numbers that the template of the curve writes as SVG."""

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
    """A drawn line in the units of a surface of `width` x `height`, y downwards. `start` to `stop` is the span of x."""

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

    @property
    def end(self) -> Point:
        """Return where the line ends."""
        return self.points[-1]


def draw_curve(points: Sequence[Point]) -> Curve:
    """Return the curve of these points, y from 0 to a little above the highest value. Raises ValueError for none."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min([0.0, *ys]), max([0.0, *ys]) * HEADROOM or 1.0
    start, span_x, span_y = min(xs), (max(xs) - min(xs)) or 1.0, (high - low) or 1.0
    across, down = Curve.width - Curve.left - Curve.right, Curve.height - Curve.bottom

    def place(x: float, y: float) -> Point:
        return Curve.left + (x - start) / span_x * across, down * (1 - (y - low) / span_y)

    values = [low + span_y * part / GRID_PARTS for part in range(GRID_PARTS + 1)]
    grid = tuple(GridLine(place(start, value)[1], value) for value in values)
    return Curve(tuple(place(*point) for point in points), grid, start, max(xs), ys[-1])
