"""Grids on a slide: square tilings, and who lies in which square.

In: centres in µm, (x, y), of what was measured. Out: the squares that hold at least one of them, and for each centre
the row of its square. Levels are paired by coordinates only (paper section 3, "Patch pairing across levels was based
on the distance between the coordinates"): with a tiling, the nearest square centre is the square that holds the point.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

# N points, M squares

_EDGE_TOLERANCE = 1e-6  # of a square: a centre that lies on an edge belongs to the square right of or below it


@dataclass(frozen=True)
class Tiling:
    """Squares of `side_um` that cover points: cells (M, 2) int64 column and row, sorted by row, then column."""

    side_um: float
    origin_um: np.ndarray  # (2,) top-left corner of cell (0, 0)
    cells: np.ndarray

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def centres_um(self) -> np.ndarray:
        """Centres of the squares, (M, 2) float64."""
        return self.origin_um + (self.cells + 0.5) * self.side_um

    def rows_of(self, points_um: np.ndarray) -> np.ndarray:
        """Row of the square that holds each point, (N,) int64, -1 where the tiling has none."""
        return find_cells(self.cells, cells_of(points_um, self.side_um, origin_um=self.origin_um))

    def nearest_rows_of(self, points_um: np.ndarray) -> np.ndarray:
        """Row of the square that holds each point, or of the nearest one where the tiling has none there."""
        rows = self.rows_of(points_um)
        outside = np.flatnonzero(rows < 0)
        if len(outside):
            rows[outside] = cKDTree(self.centres_um).query(points_um[outside])[1]
        return rows

    def subset(self, rows: np.ndarray) -> "Tiling":
        """Return the tiling of these rows only, in sorted order."""
        return Tiling(self.side_um, self.origin_um, self.cells[np.sort(rows)])


def cells_of(points_um: np.ndarray, side_um: float, *, origin_um: np.ndarray) -> np.ndarray:
    """Column and row of the square each point lies in, (N, 2) int64."""
    cells: np.ndarray = np.floor((points_um - origin_um) / side_um + _EDGE_TOLERANCE).astype(np.int64)
    return cells


def tile(points_um: np.ndarray, side_um: float, *, pitch_um: float = 0.0) -> Tiling:
    """Lay squares of `side_um` from the top-left of the points, and keep those that hold one.

    `pitch_um` is the distance between neighbouring points, where they lie on a lattice: the first square then starts
    half a pitch before the first centre, so that 56 µm hold exactly 7 × 7 bins of 8 µm.
    """
    origin_um = points_um.min(axis=0) - pitch_um / 2
    cells = np.unique(cells_of(points_um, side_um, origin_um=origin_um)[:, ::-1], axis=0)[:, ::-1]  # by row, column
    return Tiling(side_um, origin_um, np.ascontiguousarray(cells))


@dataclass(frozen=True)
class Around:
    """What points see of a level: rows (N, W) int64 of it, and their weights (N, W) float32, which sum to 1."""

    rows: np.ndarray
    weights: np.ndarray

    @classmethod
    def paired(cls, pairs: np.ndarray) -> "Around":
        """See one row alone: that each point is paired with (N,)."""
        return cls(pairs[:, None], np.ones((len(pairs), 1), np.float32))

    def of(self, points: np.ndarray) -> "Around":
        """Return what some of the points (n,) see."""
        return Around(self.rows[points], self.weights[points])


def tiles_around(points_um: np.ndarray, tile_centres_um: np.ndarray, *, side_um: float, paired: np.ndarray) -> Around:
    """Return the four squares of a tiling whose centres enclose each point, weighed bilinearly by where it lies.

    `tile_centres_um` (M, 2) are the squares there are, in any order, of one lattice; those that are missing weigh
    nothing and the others make up for them. The weights change continuously as a point moves, over borders of squares
    too, and a square counts no more where it begins or ceases to be one of the four. `paired` (N,) is seen alone by a
    point that has none of its four.
    """
    first_um = tile_centres_um.min(axis=0)
    cells = np.round((tile_centres_um - first_um) / side_um).astype(np.int64)
    order = np.lexsort(cells.T)  # by row, then column
    place = (points_um - first_um) / side_um  # in squares from the first centre
    upper_left = np.floor(place).astype(np.int64)
    share = place - upper_left  # of the way to the next centre, 0 … 1
    rows, weights = np.empty((len(points_um), 4), np.int64), np.empty((len(points_um), 4))
    for corner, (right, down) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        at = find_cells(cells[order], upper_left + (right, down))
        weight = np.abs(1 - right - share[:, 0]) * np.abs(1 - down - share[:, 1])
        rows[:, corner] = np.where(at < 0, paired, order[at])
        weights[:, corner] = np.where(at < 0, 0.0, weight)
    total = weights.sum(axis=1, keepdims=True)
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1), [1.0, 0.0, 0.0, 0.0])
    rows[total[:, 0] == 0] = paired[total[:, 0] == 0, None]
    return Around(rows, weights.astype(np.float32))


def find_cells(cells: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the row in `cells` (M, 2), sorted by row, then column, of each of `wanted` (N, 2); -1 where absent."""
    if len(cells) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    low = np.minimum(cells.min(axis=0), wanted.min(axis=0, initial=0))
    width = int(max(cells[:, 0].max(), wanted[:, 0].max(initial=0)) - low[0]) + 1
    keys = (cells[:, 1] - low[1]) * width + (cells[:, 0] - low[0])
    wanted_keys = (wanted[:, 1] - low[1]) * width + (wanted[:, 0] - low[0])
    positions = np.searchsorted(keys, wanted_keys).clip(max=len(keys) - 1)
    return np.where(keys[positions] == wanted_keys, positions, -1)


def dilate(tiling: Tiling, rows: np.ndarray, *, hops: int) -> np.ndarray:
    """Return the sorted rows of the tiling that lie within `hops` squares (diagonals count) of the given rows."""
    steps = np.arange(-hops, hops + 1)
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    around = (tiling.cells[rows][:, None] + offsets).reshape(-1, 2)
    neighbours = np.unique(find_cells(tiling.cells, around))
    return neighbours[neighbours >= 0]


def sum_by_owner(counts: sparse.csr_matrix, owner: np.ndarray, num_owners: int) -> sparse.csr_matrix:
    """Sum raw count rows (N, G) into their owners (M, G); Eq. 6 of the paper. Rows with owner -1 are left out."""
    kept = np.flatnonzero(owner >= 0)
    shape = (num_owners, counts.shape[0])
    indicator = sparse.csr_matrix((np.ones(len(kept), counts.dtype), (owner[kept], kept)), shape=shape)
    total = sparse.csr_matrix(indicator @ counts)
    total.sort_indices()
    return total
