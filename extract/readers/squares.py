"""The 2 µm squares of Visium HD summed into bins, for folders that hold nothing else.

In: the filtered matrix of the squares, which has the squares in tissue, and the positions of all squares. Out: the
bins that hold at least one square in tissue, each with the exact sum of those squares. Space Ranger's own bins at the
rim of the tissue also count the squares beside it.
"""

import numpy as np
import polars as pl

from extract.readers.binning import bin_barcodes, sum_into_bins
from extract.readers.positions import centres_of
from extract.readers.tenx_h5 import TenxMatrix
from magnet_core.records import Assay

# M squares of the matrix, P squares in all, N bins

SQUARE_UM = 2


def sum_squares(
    matrix: TenxMatrix, joined: pl.DataFrame, positions: pl.DataFrame, *, bin_sizes_um: tuple[int, ...]
) -> dict[int, Assay]:
    """Sum squares by array_row and array_col into bins of each size in µm, each a multiple of the one before.

    `joined` (M) are the positions of the matrix's rows, `positions` (P) those of all squares: a bin's centre is the
    mean of all its squares, also of those out of tissue.
    """
    in_tissue = joined["in_tissue"].to_numpy() == 1
    cells = joined.select("array_col", "array_row").to_numpy()[in_tissue]
    counts = matrix.counts if in_tissue.all() else matrix.counts[in_tissue]
    cell_um = SQUARE_UM
    bins: dict[int, Assay] = {}
    for bin_um in bin_sizes_um:
        cells, counts = sum_into_bins(cells, counts, side=bin_um // cell_um)
        cell_um = bin_um
        centres_px = _centres(positions, cells, side=bin_um // SQUARE_UM)
        bins[bin_um] = Assay(bin_barcodes(bin_um, cells), centres_px, counts, pitch_um=float(bin_um))
    return bins


def _centres(positions: pl.DataFrame, cells: np.ndarray, *, side: int) -> np.ndarray:
    """Mean centre of the squares of each bin, (N, 2) float64, (x, y) in full-resolution pixels."""
    of_bin = positions.group_by(pl.col("array_col", "array_row").cast(pl.Int64) // side).agg(
        pl.col("pxl_col_in_fullres", "pxl_row_in_fullres").mean()
    )
    wanted = pl.DataFrame({"array_col": cells[:, 0], "array_row": cells[:, 1]})
    return centres_of(wanted.join(of_bin, on=["array_col", "array_row"], how="left", maintain_order="left"))
