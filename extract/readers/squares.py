"""The 2 µm squares of Visium HD summed into bins, for folders that hold nothing else.

In: the filtered matrix of the squares, which has the squares in tissue, and the positions of all squares. Out: the
bins that hold at least one square in tissue, each with the exact sum of those squares. Space Ranger's own bins at the
rim of the tissue also count the squares beside it.

A slide has some ten million squares. Their barcodes are held as numbers, and their counts only a block at a time.
"""

from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from extract.readers.binning import BinnedCounts, bin_barcodes, find_bins, sum_into_bins
from extract.readers.positions import join_positions, read_positions
from extract.readers.tenx_h5 import TenxFile, open_tenx_h5
from magnet_core.errors import MagnetError
from magnet_core.grid import find_cells, sum_by_owner
from magnet_core.records import Assay, Genes

# M squares of the matrix, P squares in all, N bins, G genes

SQUARE_UM = 2
BARCODE = r"^s_002um_(\d{5})_(\d{5})-1$"
BLOCK_BARCODES = 1 << 20  # held as text at a time
BLOCK_COUNTS = 1 << 24  # non-zero counts of squares that are held at a time


def sum_squares(
    matrix_path: Path, positions_path: Path, *, bin_sizes_um: tuple[int, ...]
) -> tuple[Genes, dict[int, Assay]]:
    """Sum squares by array_row and array_col into bins of each size in µm, each a multiple of the first.

    A bin's centre is the mean of all its squares, even of those out of tissue.
    """
    positions = _read_positions(positions_path)
    finest_um = bin_sizes_um[0]
    with open_tenx_h5(matrix_path) as matrix:
        cells, bin_of_square = _place(matrix, matrix_path, positions, positions_path, side=finest_um // SQUARE_UM)
        counts = _sum_in_blocks(matrix, bin_of_square, len(cells))
        genes = matrix.genes
    bins: dict[int, Assay] = {}
    for bin_um in bin_sizes_um:
        binned = BinnedCounts(cells, counts)
        if bin_um > finest_um:
            binned = sum_into_bins(cells, counts, side=bin_um // finest_um)
        centres_px = _centres(positions, binned.cells, side=bin_um // SQUARE_UM)
        bins[bin_um] = Assay(bin_barcodes(bin_um, binned.cells), centres_px, binned.counts, pitch_um=float(bin_um))
    return genes, bins


def _read_positions(path: Path) -> pl.DataFrame:
    """Read the positions of all squares (P), their barcodes as numbers."""
    positions = read_positions(path, _as_number(pl.col("barcode")))
    _check_barcodes(path, positions["barcode"])
    return positions


def _place(
    matrix: TenxFile, matrix_path: Path, positions: pl.DataFrame, positions_path: Path, *, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bins (N, 2) that hold squares in tissue, and of each square of the matrix the row of its bin, (M,).

    A square of the matrix that lies out of tissue has -1.
    """
    starts = range(0, len(matrix), BLOCK_BARCODES)
    texts = (pl.Series("barcode", matrix.barcodes(slice(start, start + BLOCK_BARCODES))) for start in starts)
    numbers = [text.to_frame().select(_as_number(pl.col("barcode"))).to_series() for text in texts]
    barcodes = pl.concat(numbers) if numbers else pl.Series("barcode", dtype=pl.Int64)
    _check_barcodes(matrix_path, barcodes)
    squares = positions.select("barcode", "in_tissue", "array_col", "array_row")
    joined = join_positions(positions_path, barcodes, squares, spell=_as_text)
    in_tissue = joined["in_tissue"].to_numpy() == 1
    cells, bin_of_kept = find_bins(joined.select("array_col", "array_row").to_numpy()[in_tissue], side=side)
    bin_of_square = np.full(len(matrix), -1, dtype=np.int32)
    bin_of_square[in_tissue] = bin_of_kept
    return cells, bin_of_square


def _sum_in_blocks(matrix: TenxFile, bin_of_square: np.ndarray, num_bins: int) -> sparse.csr_matrix:
    """Sum the squares' counts into their bins, (N, G)."""
    total = sparse.csr_matrix((num_bins, len(matrix.genes)), dtype=np.int32)
    for rows in matrix.blocks(BLOCK_COUNTS):
        total = total + sum_by_owner(matrix.counts(rows), bin_of_square[rows], num_bins)
    return total


def _centres(positions: pl.DataFrame, cells: np.ndarray, *, side: int) -> np.ndarray:
    """Return the mean centre of the squares of each bin, (N, 2) float64, (x, y) in full-resolution pixels."""
    squares = positions.select(pl.col("array_col", "array_row") // side).to_numpy()
    row = find_cells(cells, squares)
    in_a_bin = row >= 0
    row = row[in_a_bin]
    num_squares = np.bincount(row, minlength=len(cells))
    sums = (
        np.bincount(row, positions[name].to_numpy()[in_a_bin], minlength=len(cells))
        for name in ("pxl_col_in_fullres", "pxl_row_in_fullres")
    )
    return np.stack([total / num_squares for total in sums], axis=1)


def _as_number(barcode: pl.Expr) -> pl.Expr:
    """`s_002um_00012_00034-1` as 1200034: a barcode and its number say the same; null for any other text."""
    row, column = (barcode.str.extract(BARCODE, group).cast(pl.Int64) for group in (1, 2))
    return row * 100_000 + column


def _as_text(number: int) -> str:
    row, column = divmod(number, 100_000)
    return str(bin_barcodes(SQUARE_UM, np.array([[column, row]]))[0])


def _check_barcodes(path: Path, numbers: pl.Series) -> None:
    if numbers.null_count():
        raise MagnetError(
            path,
            expected="barcodes of 2 µm squares, such as s_002um_00012_00034-1",
            found=f"{numbers.null_count()} of {len(numbers)} that are written in another way",
            remedy="copy the file again from Space Ranger's outs folder",
        )
