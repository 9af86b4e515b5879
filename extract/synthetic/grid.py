"""The bin grid laid on the image, slightly turned and shifted. In: the image side. Out: bin centres, bins of points.

Serves Space Ranger's `tissue_positions.parquet`: array_row and array_col count bins, pxl_row and pxl_col are centres
in full-resolution pixels, row = y. Bins are numbered in rows: index = array_row · size + array_col.
"""

from dataclasses import dataclass

import numpy as np

BIN_UM = 8
COARSE_BIN_UM = 16
CAPTURE_SHARE = 0.93  # of the image's side

# B bins, M points; (x, y) in µm of the image


@dataclass(frozen=True)
class BinGrid:
    """A square grid: `size` bins of `bin_um` µm on a side, its centre at `centre_um`, turned by `angle_rad`."""

    bin_um: int
    size: int
    centre_um: tuple[float, float]
    angle_rad: float

    def __len__(self) -> int:
        return self.size**2

    def rows_cols(self) -> tuple[np.ndarray, np.ndarray]:
        """array_row (B,) and array_col (B,) of all bins."""
        return np.divmod(np.arange(len(self)), self.size)

    def centres_um(self) -> np.ndarray:
        """Centres (B, 2), (x, y) in µm of the image."""
        rows, cols = self.rows_cols()
        along = (cols + 0.5 - self.size / 2) * self.bin_um
        down = (rows + 0.5 - self.size / 2) * self.bin_um
        cos, sin = np.cos(self.angle_rad), np.sin(self.angle_rad)
        return np.stack([along * cos - down * sin, along * sin + down * cos], axis=1) + self.centre_um

    def index_of(self, xy_um: np.ndarray) -> np.ndarray:
        """Bin (M,) that holds each point (M, 2), −1 for points outside the grid."""
        x, y = (xy_um - self.centre_um).T
        cos, sin = np.cos(self.angle_rad), np.sin(self.angle_rad)
        cols = np.floor((x * cos + y * sin) / self.bin_um + self.size / 2).astype(np.int64)
        rows = np.floor((y * cos - x * sin) / self.bin_um + self.size / 2).astype(np.int64)
        inside = (cols >= 0) & (cols < self.size) & (rows >= 0) & (rows < self.size)
        return np.where(inside, rows * self.size + cols, -1)

    def coarser(self) -> "BinGrid":
        """The grid of 16 µm bins, each made of four 8 µm bins."""
        return BinGrid(COARSE_BIN_UM, self.size // 2, self.centre_um, self.angle_rad)

    def parent(self) -> np.ndarray:
        """Bin (B,) of the coarser grid that each bin is part of."""
        rows, cols = self.rows_cols()
        bins: np.ndarray = rows // 2 * (self.size // 2) + cols // 2
        return bins

    def barcodes(self) -> np.ndarray:
        """Names (B,) as Space Ranger gives them: s_008um_<array_row>_<array_col>-1."""
        rows, cols = self.rows_cols()
        names = [f"s_{self.bin_um:03}um_{r:05}_{c:05}-1" for r, c in zip(rows.tolist(), cols.tolist(), strict=True)]
        return np.array(names)


def lay_grid(side_um: float, rotation_deg: float, rng: np.random.Generator) -> BinGrid:
    """Lay 8 µm bins over most of the image, a little off its centre."""
    size = int(side_um * CAPTURE_SHARE / COARSE_BIN_UM) * 2
    shift = rng.uniform(-0.01, 0.01, 2) * side_um
    return BinGrid(BIN_UM, size, (side_um / 2 + shift[0], side_um / 2 + shift[1]), np.deg2rad(rotation_deg))
