"""Counts of finer squares summed into bins, as Space Ranger bins its 2 µm squares.

In: the cell of a lattice that each row of counts lies in. Out: the bins that hold at least one, their counts, and
barcodes in Space Ranger's way of writing. Sums are exact and sparse: nothing is normalised, nothing is dropped.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from magnet_core.grid import sum_by_owner

# M rows of finer squares, N bins, G genes


class BinnedCounts(NamedTuple):
    """Column and row (N, 2) int64 of each bin, sorted by row, then column, and raw counts (N, G)."""

    cells: np.ndarray
    counts: sparse.csr_matrix


def sum_into_bins(cells: np.ndarray, counts: sparse.csr_matrix, *, side: int) -> BinnedCounts:
    """Sum rows at `cells` (M, 2), column and row from 0, into bins of side × side cells."""
    column, row = (cells // side).astype(np.int64).T
    width = int(column.max(initial=0)) + 1
    keys, owner = np.unique(row * width + column, return_inverse=True)
    bins = np.stack([keys % width, keys // width], axis=1)
    return BinnedCounts(bins, sum_by_owner(counts, owner, len(keys)))


def bin_barcodes(bin_um: int, cells: np.ndarray) -> np.ndarray:
    """Barcodes (N,) of bins at column and row (N, 2), such as s_008um_00012_00034-1: the row comes first."""
    return np.array([f"s_{bin_um:03d}um_{row:05d}_{column:05d}-1" for column, row in cells.tolist()], dtype=np.str_)
