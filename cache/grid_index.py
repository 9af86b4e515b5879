"""FAISS candidates from a coordinate grid: an inverted file whose lists are the cells of a square grid.

In: points in a plane and the side of a cell. Out: for chosen points, the nearest candidates in the 3x3 cells around
them, and a lower bound of the distance to any point outside those cells. Serves the graphs of the paper's section 3 at
whole slides: the cells are known by arithmetic, so there is nothing to train and nothing to search coarsely.
"""

from dataclasses import dataclass
from types import ModuleType

import numpy as np

# N points, P points that may be proposed, R points asked for, C occupied cells, W candidates

FINEST_CELLS = 1 << 20  # cells along the longer axis at most, so that cell keys stay exact
CROWD_QUANTILE = 0.9
REFINEMENTS = 8
# The 3x3 cells in (column, row) steps; with the own cell first, FAISS rejects most later points at a glance.
NEAREST_FIRST = np.array([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]])


@dataclass(frozen=True)
class CoordinateGrid:
    """Points sorted into square cells.

    cell      (N,) int64, which occupied cell holds each point
    around    (C, 9) int64, the occupied cells among the 3x3 around each, nearest first, -1 where one is empty
    reach_um  (N,) every point outside the 3x3 cells around point i is at least this far from it
    """

    cell: np.ndarray
    around: np.ndarray
    reach_um: np.ndarray

    def counts_around(self, proposed: np.ndarray) -> np.ndarray:
        """Count the `proposed` points (P,) in the 3x3 cells around each cell, (C,)."""
        counts = np.bincount(self.cell[proposed], minlength=len(self.around))
        around: np.ndarray = np.where(self.around >= 0, counts[self.around], 0).sum(axis=1)
        return around


def build_grid(points_um: np.ndarray, side_um: float) -> CoordinateGrid:
    """Sort points (N, 2) float64 into cells of `side_um`."""
    place = (points_um - points_um.min(axis=0)) / side_um  # in cells
    column_row = np.floor(place).astype(np.int64)
    width = int(column_row[:, 1].max()) + 3  # an empty row on each side: neighbours never wrap round
    keys = (column_row[:, 0] + 1) * width + column_row[:, 1] + 1
    occupied, cell = np.unique(keys, return_inverse=True)
    keys_around = occupied[:, None] + NEAREST_FIRST @ [width, 1]
    around = np.searchsorted(occupied, keys_around).clip(max=len(occupied) - 1)
    around[occupied[around] != keys_around] = -1
    within = place - column_row
    reach_um = (1 + np.minimum(within, 1 - within).min(axis=1)) * side_um
    return CoordinateGrid(cell, around, reach_um)


def crowd_side(points_um: np.ndarray, points_per_cell: int) -> float:
    """Return the side in µm of cells that hold about `points_per_cell` points where most points are.

    Tissue fills part of its bounding box and clusters fill less: the side shrinks until nine points in ten lie in
    cells that are not crowded.
    """
    extent = np.ptp(points_um, axis=0)
    share = points_per_cell / len(points_um)
    finest = max(float(extent.max()) / FINEST_CELLS, 1e-6)
    side = max(float(np.sqrt(extent[0] * extent[1] * share)), float(extent.max()) * share, finest)
    for _ in range(REFINEMENTS):
        cells = np.floor((points_um - points_um.min(axis=0)) / side).astype(np.int64)
        _, counts = np.unique(cells[:, 0] << 32 | cells[:, 1], return_counts=True)
        crowd = float(np.quantile(np.repeat(counts, counts), CROWD_QUANTILE))
        if crowd <= 1.5 * points_per_cell or side == finest:
            break
        side = max(side * float(np.sqrt(points_per_cell / crowd)), finest)
    return side


def grid_candidates(
    faiss: ModuleType,
    points32: np.ndarray,
    *,
    grid: CoordinateGrid,
    proposed: np.ndarray,
    asked: np.ndarray,
    width: int,
) -> np.ndarray:
    """Return the `width` points nearest by float32 distance in the 3x3 cells around each asked point, with itself.

    `points32` (N, 2) are centred float32 coordinates, `proposed` (P,) and `asked` (R,) index them, in rising order.
    Returns (R, W) int64; -1 fills the rows of points with fewer around them.
    """
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(2), 2, len(grid.around))
    index.is_trained = True
    index.nprobe = grid.around.shape[1]
    vectors, lists = points32[proposed], grid.cell[proposed]
    index.add_core(len(proposed), *map(faiss.swig_ptr, (vectors, proposed, lists)))
    by_cell = np.argsort(grid.cell[asked], kind="stable")  # points of one cell read the same lists
    in_turn = asked[by_cell]
    probes = grid.around[grid.cell[in_turn]]
    _, nearest = index.search_preassigned(points32[in_turn], width, probes, None)
    candidates: np.ndarray = np.empty_like(nearest)
    candidates[by_cell] = nearest
    return candidates
