"""Figures as geometry: points, lines and ticks in the units of an SVG, which the template draws.

In: numbers. Out: a `Plot`. Colours are names of classes in the page's style, so that a figure is light or dark as the
page is; a mark's title shows when the pointer rests on it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# E epochs, G genes

PALETTE = 6  # classes c0 to c5 of the style
MOST_TITLES = 3000  # points of a figure that have a title; more would make the page heavy
WIDTH, HEIGHT = 440.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 26.0, 42.0
ROW, NAMES = 21.0, 205.0  # height of a row of names, and their width
LONGEST_NAME = 32


@dataclass(frozen=True)
class Tick:
    """Where a tick stands on its axis, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point, with what it says."""

    x: float
    y: float
    look: str
    title: str = ""


@dataclass(frozen=True)
class Path:
    """A line through points, or dots where `look` says so; `d` as in an SVG path."""

    d: str
    look: str
    title: str = ""


@dataclass(frozen=True)
class Plot:
    """One figure in a box of `width` by `height`; the frame is (left, top, right, bottom)."""

    title: str
    x_title: str
    y_title: str
    width: float
    height: float
    frame: tuple[float, float, float, float]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    paths: Sequence[Path] = ()
    marks: Sequence[Mark] = ()
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Estimate:
    """A system's mean with its interval, NaN where there is none."""

    name: str
    mean: float
    low: float = math.nan
    high: float = math.nan
    is_ours: bool = False


@dataclass(frozen=True)
class Curve:
    """A value by epoch (E,), not finite where it is unknown; `family` has one colour; a dot marks the epoch kept."""

    family: str
    name: str
    values: Sequence[float]
    kept_epoch: int


@dataclass(frozen=True)
class Scale:
    """A linear scale from values to the units of the figure."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> "Scale":
        """A scale that holds all values and some room about them."""
        low, high = min(values), max(values)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        """Where a value stands."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self) -> list[Tick]:
        """Three to seven round values."""
        step = round_step((self.high - self.low) / 7)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [Tick(self(index * step), f"{index * step:.{digits}f}") for index in range(first, last + 1)]


def round_step(raw: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below `raw`."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))


def estimates(title: str, rows: Sequence[Estimate], *, x_title: str, ceiling: float = math.nan) -> Plot:
    """Draw rows of points with intervals, and an upper bound of what can be reached as a dashed line."""
    values = [0.0, *(each for row in rows for each in (row.mean, row.low, row.high)), ceiling]
    bottom = TOP + ROW * len(rows) + 6
    x = Scale.over([value for value in values if math.isfinite(value)], NAMES, WIDTH - RIGHT)
    paths, marks, names = [], [], []
    for index, row in enumerate(rows):
        y = TOP + ROW * (index + 0.5) + 3
        look = "ours" if row.is_ours else "other"
        names.append(Tick(y, shortened(row.name)))
        if not math.isfinite(row.mean):
            continue
        said = f"{row.name}: {row.mean:.3f}"
        if math.isfinite(row.low):
            paths.append(Path(f"M{x(row.low)} {y}H{x(row.high)}", look))
            said += f", 95 % {row.low:.3f} to {row.high:.3f}"
        marks.append(Mark(x(row.mean), y, look, said))
    if math.isfinite(ceiling):
        paths.insert(0, Path(f"M{x(ceiling)} {TOP}V{bottom}", "limit", f"noise ceiling (upper bound): {ceiling:.3f}"))
    frame = (NAMES, TOP, WIDTH - RIGHT, bottom)
    return Plot(title, x_title, "", WIDTH, bottom + BOTTOM, frame, x.ticks(), names, paths, marks)


def scatter(
    title: str, points: Sequence[tuple[float, float, str]], *, x_title: str, y_title: str, limit: str = ""
) -> Plot:
    """Draw points (x, y, title) and the line where both are equal, which `limit` names."""
    both = [value for x, y, _ in points for value in (x, y)]
    frame = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)
    across = Scale.over([0.0, *both], frame[0], frame[2])
    up = Scale(across.low, across.high, frame[3], frame[1])
    paths = [Path(f"M{frame[0]} {frame[3]}L{frame[2]} {frame[1]}", "limit", limit)]
    marks = []
    if len(points) > MOST_TITLES:
        paths.append(Path("".join(f"M{across(x)} {up(y)}h0" for x, y, _ in points), "dots"))
    else:
        marks = [Mark(across(x), up(y), "gene", said) for x, y, said in points]
    return Plot(title, x_title, y_title, WIDTH, HEIGHT, frame, across.ticks(), up.ticks(), paths, marks)


def curves(title: str, drawn: Sequence[Curve], *, y_title: str) -> Plot:
    """Draw values by epoch, from 1; each family has its own colour."""
    families = list(dict.fromkeys(curve.family for curve in drawn))
    longest = max(len(curve.values) for curve in drawn)
    finite_values = [value for curve in drawn for value in curve.values if math.isfinite(value)]
    bottom = HEIGHT - BOTTOM
    x = Scale(0.5, longest + 0.5, LEFT, WIDTH - RIGHT)
    y = Scale.over(finite_values or [0.0], bottom, TOP)
    paths, marks = [], []
    for curve in drawn:
        look = f"c{families.index(curve.family) % PALETTE}"
        points = [(epoch, value) for epoch, value in enumerate(curve.values, start=1) if math.isfinite(value)]
        if points:
            d = "M" + "L".join(f"{x(epoch)} {y(value)}" for epoch, value in points)
            paths.append(Path(d, look, f"{curve.family}, {curve.name}"))
        marks += [
            Mark(x(epoch), y(value), look, f"{curve.family}, {curve.name}: {value:.4g} at epoch {epoch}, kept")
            for epoch, value in points
            if epoch == curve.kept_epoch
        ]
    legend = [(f"c{index % PALETTE}", family) for index, family in enumerate(families)]
    step = max(1, math.ceil(round_step(longest / 8)))
    epochs = [Tick(x(epoch), str(epoch)) for epoch in range(step, longest + 1, step)]
    frame = (LEFT, TOP, WIDTH - RIGHT, bottom)
    return Plot(title, "epoch", y_title, WIDTH, HEIGHT, frame, epochs, y.ticks(), paths, marks, legend)


def shortened(name: str) -> str:
    """A name that fits beside its row."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
