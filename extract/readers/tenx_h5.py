"""10x Genomics' feature-barcode matrix, the h5 file of Cell Ranger 3+ and Space Ranger.

In: `filtered_feature_bc_matrix.h5`, group `matrix`: CSC of features × barcodes. Out: the same arrays seen as CSR of
barcodes × genes, which needs no copy. Features other than `Gene Expression` are left out.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

from extract.readers.gene_names import unique_names
from magnet_core.errors import MagnetError
from magnet_core.records import Genes

# N barcodes, G genes, F features of any type, Z non-zero counts

GENE_EXPRESSION = "Gene Expression"


@dataclass(frozen=True)
class TenxMatrix:
    """Barcodes (N,) str, genes (G), and raw counts (N, G) CSR with sorted int32 column indices."""

    barcodes: np.ndarray
    genes: Genes
    counts: sparse.csr_matrix


def read_tenx_h5(path: Path) -> TenxMatrix:
    """Read a 10x h5 matrix; peak memory is about 1.1 times data and indices. A malformed file is a `MagnetError`."""
    try:
        with h5py.File(path, "r") as file:
            matrix = file["matrix"]
            features = matrix["features"]
            ids, names = _strings(features["id"]), _strings(features["name"])
            feature_types = _strings(features["feature_type"])
            barcodes = _strings(matrix["barcodes"])
            counts = _read_csr(path, matrix, shape=(len(barcodes), len(ids)))
    except (OSError, KeyError) as error:
        raise MagnetError(
            path,
            expected="a 10x feature-barcode matrix (Cell Ranger 3+ or Space Ranger)",
            found=str(error),
            remedy="copy the file again from Space Ranger's outs folder",
        ) from error
    is_gene = feature_types == GENE_EXPRESSION
    if not is_gene.all():
        counts, ids, names = counts[:, np.flatnonzero(is_gene)], ids[is_gene], names[is_gene]
    if not len(ids):
        raise MagnetError(
            path,
            expected=f"features of type '{GENE_EXPRESSION}'",
            found=f"only {', '.join(sorted(set(feature_types.tolist()))) or 'none'}",
            remedy="choose the gene expression matrix",
        )
    return TenxMatrix(barcodes, Genes(ids, unique_names(names)), counts)


def _strings(dataset: h5py.Dataset) -> np.ndarray:
    return dataset.asstr()[...].astype(str)


def _read_csr(path: Path, matrix: h5py.Group, *, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Read F × N CSC arrays as N × F CSR. HDF5 narrows the int64 indices while it reads: no second copy."""
    stated_shape = tuple(int(size) for size in matrix["shape"][...])
    num_nonzero = matrix["data"].shape[0]
    integer = np.int32 if num_nonzero <= np.iinfo(np.int32).max else np.int64
    values = matrix["data"][...]
    columns = matrix["indices"].astype(integer)[...]
    row_ends = matrix["indptr"].astype(integer)[...]
    problem = None
    if stated_shape != shape[::-1]:
        problem = f"shape {stated_shape} for {shape[1]} features and {shape[0]} barcodes"
    elif values.dtype.kind not in "iu":
        problem = f"counts of type {values.dtype}"
    elif len(columns) != num_nonzero or not _are_row_ends(row_ends, num_rows=shape[0], num_nonzero=num_nonzero):
        problem = "an indptr that does not fit data and indices"
    elif num_nonzero and not (columns.min() >= 0 and columns.max() < shape[1] and values.min() >= 0):
        problem = "indices outside the features, or negative counts"
    if problem is not None:
        raise MagnetError(
            path,
            expected="a consistent matrix of raw counts",
            found=problem,
            remedy="copy the file again from Space Ranger's outs folder",
        )
    counts = sparse.csr_matrix((values, columns, row_ends), shape=shape, copy=False)
    counts.sort_indices()
    return counts


def _are_row_ends(row_ends: np.ndarray, *, num_rows: int, num_nonzero: int) -> bool:
    if len(row_ends) != num_rows + 1:
        return False
    return bool(row_ends[0] == 0 and row_ends[-1] == num_nonzero and (np.diff(row_ends) >= 0).all())
