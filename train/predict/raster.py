"""The whole slide as a raster in which every row of a prediction has its place.

In: a prediction. Out: which row lies below each pixel. The raster is not turned: its axes and its top left corner are
those of the image, so that a program that knows how wide a pixel is lays it on the slide.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from magnet_core.levels import SPOT
from train.data.lattice import Lattice, lattice_of
from train.predict.prediction import SlidePrediction

# N rows, H × W pixels

NOTHING = -1  # the row where none lies
_BAND = 256  # rows of the raster that are found at a time
_ALIGNED = 1e-3  # of a bin: as far as rounding moves one
_SPOT_PIXELS = 8  # across a spot, so that a round one looks round

Find = Callable[[np.ndarray], np.ndarray]  # points (n, 2) in µm -> rows (n,), `NOTHING` where none lies


@dataclass(frozen=True)
class SlideRaster:
    """Pixels of the whole slide.

    rows  (H, W) int32, the row of the prediction that lies below the middle of each pixel
    um    side of a pixel
    """

    rows: np.ndarray
    um: float

    def paint(self, values: np.ndarray) -> np.ndarray:
        """Lay values (N,) out as (H, W) float32, NaN where no row lies."""
        with_nothing = np.append(values, np.nan).astype(np.float32)  # which is its last, -1
        painted: np.ndarray = with_nothing[self.rows]
        return painted


def rasterise(prediction: SlidePrediction) -> SlideRaster:
    """Find the row below each pixel of the slide; without a picture the raster ends where the last row does."""
    um, find = pixel_um(prediction), finder(prediction)
    if prediction.picture is None:
        size_um = prediction.slide.fine.centres_um.max(axis=0) + prediction.side_um / 2
    else:
        size_um = np.array(prediction.picture.pixels.shape[1::-1]) * prediction.picture.um_per_px
    width, height = (max(1, round(along / um)) for along in size_um)
    rows = np.empty((height, width), np.int32)
    for start in range(0, height, _BAND):
        down, along = np.mgrid[start : min(start + _BAND, height), :width]
        points_um = (np.stack([along, down], axis=-1).reshape(-1, 2) + 0.5) * um
        rows[start : start + _BAND] = find(points_um).reshape(down.shape)
    return SlideRaster(rows, um)


def pixel_um(prediction: SlidePrediction) -> float:
    """Return the side of a pixel: a bin, where the lattice of bins is that of pixels.

    Of a lattice that is turned or shifted against the image it is half a bin: the pixel at the centre of a bin then has
    its middle inside that bin, whatever the turn.
    """
    side_um = prediction.side_um
    if prediction.slide.fine.name == SPOT:
        return side_um / _SPOT_PIXELS
    cells = prediction.slide.fine.centres_um / side_um - 0.5
    return side_um if np.abs(cells - np.round(cells)).max() < _ALIGNED else side_um / 2


def finder(prediction: SlidePrediction) -> Find:
    """Return what finds the rows at points: on the lattice, else by the nearest centre."""
    centres_um, side_um = prediction.slide.fine.centres_um, prediction.side_um
    lattice = lattice_of(prediction.slide.fine.barcodes().tolist(), centres_um)
    if lattice is not None:
        return _on_lattice(lattice)
    reach = np.inf if prediction.slide.fine.name != SPOT else 2  # a bin is a square, a spot is round
    tree = cKDTree(centres_um)

    def find(points_um: np.ndarray) -> np.ndarray:
        distance_um, rows = tree.query(points_um, p=reach, distance_upper_bound=side_um / 2)
        return np.where(np.isfinite(distance_um), rows, NOTHING)

    return find


def _on_lattice(lattice: Lattice) -> Find:
    row_at = np.full(lattice.shape, NOTHING, np.int32)
    row_at[tuple(lattice.cells.T)] = np.arange(len(lattice.cells))
    to_cell = np.linalg.inv(lattice.to_um[:, :2])

    def find(points_um: np.ndarray) -> np.ndarray:
        columns, rows = np.round((points_um - lattice.to_um[:, 2]) @ to_cell.T).astype(np.int64).T
        inside = (rows >= 0) & (rows < row_at.shape[0]) & (columns >= 0) & (columns < row_at.shape[1])
        found = np.full(len(points_um), NOTHING, np.int32)
        found[inside] = row_at[rows[inside], columns[inside]]
        return found

    return find
