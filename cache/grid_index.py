"""FAISS on a coordinate grid: an inverted file whose lists are the cells of a square grid.

In: points in a plane and the side of a cell. Out: for chosen points, all points within one side of them. Serves the
graphs of the paper's section 3 at whole slides: the cells are known by arithmetic, so there is nothing to train and
nothing to search coarsely, and a radius needs no heap where the k nearest would.
"""

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

# N points, P points that may be proposed, R points asked for, C cells, F points found

FINEST_CELLS = 1 << 20  # cells along the longer axis at most, so that their numbers stay exact
CROWD_QUANTILE = 0.9
REFINEMENTS = 8
SCANNED_IN_PART = 1 << 18  # points in the cells around those asked for: what their search leaves fits in a cache
STEPS = np.array([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]])  # columns, rows


@dataclass(frozen=True)
class CoordinateGrid:
    """Points sorted into square cells of a plane that is folded, so that there are no more cells than points.

    A cell also holds the points of the places folded onto it; the 3x3 cells around a point are distinct, and hold
    every point within `side_um` of it.

    cell   (N,) int64, the cell of each point, counted along rows
    shape  columns and rows, at least 3 each
    """

    side_um: float
    cell: np.ndarray
    shape: tuple[int, int]

    def count(self, points: np.ndarray) -> np.ndarray:
        """Count the chosen points (indices) in each cell, (C,)."""
        return np.bincount(self.cell[points], minlength=self.shape[0] * self.shape[1])

    def count_around(self, points: np.ndarray) -> np.ndarray:
        """Count the chosen points (indices) in the 3x3 cells around each cell, (C,)."""
        counts = self.count(points).reshape(self.shape)
        for axis in (0, 1):
            counts = counts + np.roll(counts, 1, axis) + np.roll(counts, -1, axis)
        return counts.ravel()

    def around(self, cells: np.ndarray) -> np.ndarray:
        """Return the 3x3 cells around each of some cells, (..., 9)."""
        columns, rows = self.shape
        column, row = (place[..., None] for place in np.divmod(cells, rows))
        cells_around: np.ndarray = (column + STEPS[:, 0]) % columns * rows + (row + STEPS[:, 1]) % rows
        return cells_around


def build_grid(points_um: np.ndarray, side_um: float) -> CoordinateGrid:
    """Sort points (N, 2) float64 into cells of `side_um`."""
    column, row = (((axis_um - axis_um.min()) / side_um).astype(np.int64) for axis_um in points_um.T)
    columns, rows = (max(int(place.max()) + 1, 3) for place in (column, row))
    short = min(columns, rows, max(math.isqrt(len(points_um)), 3))
    long = min(max(columns, rows), max(len(points_um) // short, 3))
    shape = (short, long) if columns <= rows else (long, short)
    column, row = (
        place % size if size < full else place
        for place, size, full in zip((column, row), shape, (columns, rows), strict=True)
    )
    return CoordinateGrid(side_um, column * shape[1] + row, shape)


def crowd_side(points_um: np.ndarray, points_per_cell: float) -> float:
    """Return the side in µm of cells that hold about `points_per_cell` points where most points are.

    Tissue fills part of its bounding box and clusters fill less: the side shrinks until nine points in ten lie in
    cells that are not crowded.
    """
    width_um, height_um = (float(np.ptp(axis_um)) for axis_um in points_um.T)
    share, longer_um = points_per_cell / len(points_um), max(width_um, height_um)
    finest = max(longer_um / FINEST_CELLS, 1e-6)
    side = max(math.sqrt(width_um * height_um * share), longer_um * share, finest)
    everyone = np.arange(len(points_um))
    for _ in range(REFINEMENTS):
        cells_by_count = np.bincount(build_grid(points_um, side).count(everyone))
        points_up_to = np.cumsum(cells_by_count * np.arange(len(cells_by_count)))
        crowd = int(np.searchsorted(points_up_to, CROWD_QUANTILE * len(points_um)))
        if crowd <= 1.5 * points_per_cell or side == finest:
            break
        side = max(side * math.sqrt(points_per_cell / crowd), finest)
    return side


@dataclass(frozen=True)
class CellIndex:
    """FAISS lists of the points in the cells around those that will be asked for; other cells have no list.

    list_of_cell  (C,) the list of each cell that has one
    """

    points32: np.ndarray
    grid: CoordinateGrid
    list_of_cell: np.ndarray
    lists: Any

    def within_side(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the points within a cell's side, by float32 distance, of each asked point; faster if these are sorted.

        Returns how many were found for each (R,), and the points found (F,). Threads may search at the same time.
        """
        cells, cell = np.unique(self.grid.cell[asked], return_inverse=True)
        probes = self.list_of_cell[self.grid.around(cells)][cell]
        ends, _, found = self.lists.range_search_preassigned(self.points32[asked], self.grid.side_um**2, probes, None)
        return np.diff(ends.astype(np.int64)), found


def index_cells(
    faiss: ModuleType, points32: np.ndarray, *, grid: CoordinateGrid, proposed: np.ndarray, asked: np.ndarray
) -> CellIndex:
    """Fill the lists of the cells around the asked points with the points that are proposed.

    `points32` (N, 2) are centred float32 coordinates, `proposed` (P,) and `asked` (R,) index them.
    """
    is_near = grid.count_around(asked) > 0
    list_of_cell = np.cumsum(is_near) - 1
    near = proposed[is_near[grid.cell[proposed]]]
    near = near[np.argsort(grid.cell[near])]
    lists = faiss.IndexIVFFlat(faiss.IndexFlatL2(2), 2, int(list_of_cell[-1]) + 1)
    lists.is_trained = True
    lists.nprobe = len(STEPS)
    vectors, list_of_point = points32[near], list_of_cell[grid.cell[near]]
    lists.add_core(len(near), *map(faiss.swig_ptr, (vectors, near, list_of_point)))
    return CellIndex(points32, grid, list_of_cell, lists)


def parts_by_cell(grid: CoordinateGrid, *, proposed: np.ndarray, asked: np.ndarray) -> list[np.ndarray]:
    """Cut asked points (R,), sorted by cell, into parts that scan about as many of the proposed points each."""
    asked = asked[np.argsort(grid.cell[asked])]  # points of one cell read the same lists
    part = np.cumsum(grid.count_around(proposed)[grid.cell[asked]]) // SCANNED_IN_PART
    return np.split(asked, np.flatnonzero(np.diff(part)) + 1)
