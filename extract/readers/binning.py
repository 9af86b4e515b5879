"""Counts of finer squares summed into bins, as Space Ranger bins its 2 µm squares.

In: the cell of a lattice that each row of counts lies in. Out: the bins that hold at least one, their counts, and
barcodes in Space Ranger's way of writing. Sums are exact and sparse: nothing is normalised, nothing is dropped.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from magnet_core.errors import MagnetError
from magnet_core.grid import find_cells, sum_by_owner
from magnet_core.records import Assay

# M rows of finer squares, N bins, G genes


class BinnedCounts(NamedTuple):
    """Column and row (N, 2) int64 of each bin, sorted by row, then column, and raw counts (N, G)."""

    cells: np.ndarray
    counts: sparse.csr_matrix


def sum_into_bins(cells: np.ndarray, counts: sparse.csr_matrix, *, side: int) -> BinnedCounts:
    """Sum rows at `cells` (M, 2), column and row from 0, into bins of side × side cells."""
    bins, owner = find_bins(cells, side=side)
    return BinnedCounts(bins, sum_by_owner(counts, owner, len(bins)))


def find_bins(cells: np.ndarray, *, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bins of side × side cells that hold any of `cells`, as `BinnedCounts.cells`, and the row of each."""
    column, row = (cells // side).astype(np.int64).T
    width = int(column.max(initial=0)) + 1
    keys, owner = np.unique(row * width + column, return_inverse=True)
    return np.stack([keys % width, keys // width], axis=1), owner


def fill_squares(binned: BinnedCounts, *, side: int, min_count: int) -> BinnedCounts:
    """Return all bins, empty ones too, of the squares of side × side bins that hold `min_count` counts or more."""
    totals = sparse.csr_matrix(binned.counts.sum(axis=1))
    squares = sum_into_bins(binned.cells, totals, side=side)
    dense = squares.cells[squares.counts.toarray().ravel() >= min_count]
    within = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    cells = (dense[:, None] * side + within).reshape(-1, 2)
    cells = cells[np.lexsort(cells.T)]  # by row, then column
    return BinnedCounts(cells, sum_by_owner(binned.counts, find_cells(cells, binned.cells), len(cells)))


def coarsen(assay: Assay, *, side: int, bin_um: int) -> Assay:
    """Sum bins into bins of `side` times their side, `bin_um` µm, placed where the lattice of the finer ones says."""
    assert assay.counts is not None
    cells = bin_cells(assay.barcodes)
    binned = sum_into_bins(cells, assay.counts, side=side)
    corners = np.column_stack([cells + 0.5, np.ones(len(cells))])
    px_of_cell, *_ = np.linalg.lstsq(corners, assay.centres_px, rcond=None)  # (3, 2)
    centres_px = np.column_stack([(binned.cells + 0.5) * side, np.ones(len(binned.cells))]) @ px_of_cell
    return Assay(bin_barcodes(bin_um, binned.cells), centres_px, binned.counts, pitch_um=float(bin_um))


def bin_cells(barcodes: np.ndarray) -> np.ndarray:
    """Column and row (N, 2) int64 of bins by their barcodes, the inverse of `bin_barcodes`."""
    places = [barcode.removesuffix("-1").split("_")[:-3:-1] for barcode in barcodes.tolist()]
    return np.array(places, dtype=np.int64).reshape(-1, 2)


def bin_barcodes(bin_um: int, cells: np.ndarray) -> np.ndarray:
    """Barcodes (N,) of bins at column and row (N, 2), such as s_008um_00012_00034-1: the row comes first."""
    return np.array([f"s_{bin_um:03d}um_{row:05d}_{column:05d}-1" for column, row in cells.tolist()], dtype=np.str_)


def check_bin_barcodes(path: Path, barcodes: np.ndarray, *, bin_um: int) -> None:
    """Refuse barcodes of a matrix that are not written as `bin_barcodes` writes those of this bin size."""
    of_a_bin = re.compile(rf"s_{bin_um:03d}um_[0-9]{{5}}_[0-9]{{5}}-1")
    wrong = [barcode for barcode in barcodes.tolist() if not of_a_bin.fullmatch(barcode)]
    if wrong:
        raise MagnetError(
            path,
            expected=f"barcodes of {bin_um} µm bins, such as {bin_barcodes(bin_um, np.array([[34, 12]]))[0]}",
            found=f"{len(wrong):,} of {len(barcodes):,} that are written in another way, such as '{wrong[0]}'",
            remedy="give the matrix of this bin size from Space Ranger's outs folder of one slide",
        )
