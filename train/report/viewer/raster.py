"""Bins of a slide as a raster that a picture is painted with: which bin each of its cells shows.

In: centres (N, 2) in µm, the side of a row, and the lattice that bins lie on. Out: a `Raster`, and the outline of its
bins. A lattice is mostly turned a little against the image. As a raster has no angle, all is drawn turned back, so that
the bins stand upright, and the picture of the tissue below them is turned instead.
"""

import math
from dataclasses import dataclass

import numpy as np

from train.data.lattice import Lattice

# N rows of a slide, H × W cells of the raster, whose first is that of the top left corner

NOTHING = -1  # the row of a cell that shows no bin
_FINER = 4  # cells a side where rows lie on no lattice
_OFF = 0.3  # of a side: how far a bin may lie from its cell's centre


@dataclass(frozen=True)
class Raster:
    """Which row each cell shows.

    rows     (H, W) int32, -1 where no bin is
    left_um  of the first cell's corner, as `top_um` is, after turning back; a cell is `step_um` wide and high
    angle    in radians, by which the lattice is turned in the image, clockwise as one looks at it
    """

    rows: np.ndarray
    left_um: float
    top_um: float
    step_um: float
    angle: float = 0.0

    @property
    def width_um(self) -> float:
        """Width of the whole."""
        return float(self.rows.shape[1] * self.step_um)

    @property
    def height_um(self) -> float:
        """Height of the whole."""
        return float(self.rows.shape[0] * self.step_um)


def raster_of(centres_um: np.ndarray, side_um: float, lattice: Lattice | None) -> Raster:
    """Lay rows out, a cell a bin on a lattice; where there is none, in finer cells, each of the nearest row."""
    angle, step = (0.0, side_um) if lattice is None else turn_of(lattice)
    turned = turned_back(centres_um, angle)
    first = turned.min(axis=0)
    places = (turned - first) / step
    cells = np.rint(places).astype(np.int64)  # (N, 2) column and row
    width, height = cells.max(axis=0) + 1
    flat = cells @ [1, width]
    if np.abs(places - cells).max() > _OFF or len(np.unique(flat)) < len(flat):
        return _nearest(centres_um, side_um)
    rows = np.full(width * height, NOTHING, np.int32)
    rows[flat] = np.arange(len(flat), dtype=np.int32)
    left, top = first - step / 2
    return Raster(rows.reshape(height, width), float(left), float(top), float(step), angle)


def turn_of(lattice: Lattice) -> tuple[float, float]:
    """Return the angle of a lattice's nearest axis to the image's, from -45° to 45° in radians, and its step in µm."""
    (x, y), down = lattice.to_um[:, 0], lattice.to_um[:, 1]
    quarter = math.pi / 2
    angle = math.atan2(y, x)
    return angle - quarter * round(angle / quarter), float((math.hypot(x, y) + np.linalg.norm(down)) / 2)


def turned_back(places_um: np.ndarray, angle: float) -> np.ndarray:
    """Turn (N, 2) by an angle anticlockwise about the image's top left corner."""
    cos, sin = math.cos(angle), math.sin(angle)
    turned: np.ndarray = places_um @ np.array([[cos, -sin], [sin, cos]])
    return turned


def _nearest(centres_um: np.ndarray, side_um: float) -> Raster:
    """Give each of finer cells the row whose square it lies in; where squares overlap, the nearest."""
    from scipy.spatial import cKDTree

    step = side_um / _FINER
    left, top = centres_um.min(axis=0) - side_um / 2
    width, height = (np.ceil((np.ptp(centres_um, axis=0) + side_um) / step)).astype(np.int64)
    x, y = left + (np.arange(width) + 0.5) * step, top + (np.arange(height) + 0.5) * step
    tree, rows = cKDTree(centres_um), np.full((height, width), NOTHING, np.int32)
    for line, at in enumerate(y):
        far, nearest = tree.query(np.column_stack([x, np.full(width, at)]), distance_upper_bound=0.75 * side_um)
        inside = np.isfinite(far)
        beside = np.abs(centres_um[nearest[inside]] - np.column_stack([x[inside], np.full(inside.sum(), at)])).max(
            axis=1
        )
        rows[line, np.flatnonzero(inside)[beside <= side_um / 2]] = nearest[inside][beside <= side_um / 2]
    return Raster(rows, float(left), float(top), float(step))


def outline(raster: Raster) -> np.ndarray:
    """Lines (M, 4) int32 around bins that touch and holes among them: column and row of both ends, in cells."""
    is_bin = np.pad(raster.rows != NOTHING, 1)
    y, x0, x1 = _runs(is_bin[1:, 1:-1] != is_bin[:-1, 1:-1])
    x, y0, y1 = _runs((is_bin[1:-1, 1:] != is_bin[1:-1, :-1]).T)
    return np.concatenate([np.column_stack([x0, y, x1, y]), np.column_stack([x, y0, x, y1])]).astype(np.int32)


def _runs(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Line, start and end of each run of True along the second axis."""
    steps = np.diff(np.pad(edges.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    lines, starts = np.nonzero(steps == 1)
    return lines, starts, np.nonzero(steps == -1)[1]
