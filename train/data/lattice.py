"""The lattice that the bins of a slide lie on, so that they can be drawn as a raster and merged into regions.

In: barcodes, which tell row and column, and centres in µm. Out: a `Lattice`, whose `raster` lays values (N,) out as
(H, W). A slide's lattice may be turned or mirrored against its image: `to_um` says where it lies. Spots that stand in
no rows and columns, such as Visium's, have none.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# N rows of a slide, H × W cells of their lattice

_CELL = re.compile(r"[a-z]+_(?:\d{3}um_)?(\d{5,})_(\d{5,})(?:-1)?")  # s_008um_00012_00034-1 and spot_00003_00004
_OFF = 0.25  # of a step; a bin further from its place says that the barcodes tell no lattice
_MOST_EMPTY = 200  # cells a bin; a raster of more is of stray bins, or of none


@dataclass(frozen=True)
class Lattice:
    """Rows and columns of bins.

    cells  (N, 2) row and column of each bin, both from 0
    to_um  (2, 3) from (column, row, 1) to (x, y) in µm: the centre of a cell
    """

    cells: np.ndarray
    to_um: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """H and W."""
        rows, columns = self.cells.max(axis=0) + 1
        return int(rows), int(columns)

    def raster(self, values: np.ndarray) -> np.ndarray:
        """Values (N,) as float32 (H, W), NaN where no bin is."""
        drawn = np.full(self.shape, np.nan, np.float32)
        drawn[tuple(self.cells.T)] = values
        return drawn

    def corners_um(self) -> np.ndarray:
        """Corners (4, 2) of the raster in µm: of its first cell, and on around it."""
        height, width = self.shape
        ends = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]]) - [0.5, 0.5, 0]
        corners: np.ndarray = ends @ self.to_um.T
        return corners


def lattice_of(barcodes: Iterable[str], centres_um: np.ndarray) -> Lattice | None:
    """Return the lattice of bins at `centres_um` (N, 2); None where barcodes or places tell none."""
    found = [_CELL.fullmatch(barcode) for barcode in barcodes]
    cells = np.array([(int(each[1]), int(each[2])) for each in found if each], dtype=np.int64)
    if not len(cells) or len(cells) != len(centres_um):
        return None
    cells -= cells.min(axis=0)
    height, width = cells.max(axis=0) + 1
    if height * width > _MOST_EMPTY * len(cells) + 10_000 or len(np.unique(cells @ [width, 1])) < len(cells):
        return None
    along = np.column_stack([cells[:, 1], cells[:, 0], np.ones(len(cells))])
    to_um, *_ = np.linalg.lstsq(along, centres_um, rcond=None)
    step = np.linalg.norm(to_um[:2], axis=1)
    fits = (
        np.linalg.matrix_rank(along) == along.shape[1] and np.abs(along @ to_um - centres_um).max() < _OFF * step.min()
    )
    return Lattice(cells, to_um.T) if fits else None
