"""10x Genomics' feature-barcode matrix, the h5 file of Cell Ranger 3+ and Space Ranger.

In: `filtered_feature_bc_matrix.h5`, group `matrix`: CSC of features × barcodes. Out: the same arrays seen as CSR of
barcodes × genes, which needs no copy: all rows at once, or block by block. Features other than `Gene Expression` are
left out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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
    """Barcodes (N,) str, genes (G), and raw counts (N, G) CSR, int32 with sorted column indices."""

    barcodes: np.ndarray
    genes: Genes
    counts: sparse.csr_matrix


class TenxFile:
    """An open matrix: its genes are read, its barcodes and counts when asked for."""

    def __init__(self, path: Path, matrix: h5py.Group) -> None:
        self._path = path
        self._matrix = matrix
        features = matrix["features"]
        ids, names = _strings(features["id"]), _strings(features["name"])
        feature_types = _strings(features["feature_type"])
        is_gene = feature_types == GENE_EXPRESSION
        if not is_gene.any():
            raise MagnetError(
                path,
                expected=f"features of type '{GENE_EXPRESSION}'",
                found=f"only {', '.join(sorted(set(feature_types.tolist()))) or 'none'}",
                remedy="choose the gene expression matrix",
            )
        self.genes = Genes(ids[is_gene], unique_names(names[is_gene]))
        self._num_features = len(ids)
        self._gene_columns = None if is_gene.all() else np.flatnonzero(is_gene)
        self._row_ends = self._read_row_ends()

    def __len__(self) -> int:
        return len(self._row_ends) - 1

    def barcodes(self, rows: slice = slice(None)) -> np.ndarray:
        """Barcodes (n,) str."""
        return _strings(self._matrix["barcodes"], rows)

    def counts(self, rows: slice = slice(None)) -> sparse.csr_matrix:
        """Raw counts (n, G). HDF5 narrows the int64 indices while it reads: no second copy."""
        start, stop, _ = rows.indices(len(self))
        row_ends = self._row_ends[start : stop + 1]
        stored = slice(int(row_ends[0]), int(row_ends[-1]))
        integer = np.int32 if stored.stop - stored.start <= np.iinfo(np.int32).max else np.int64
        values = self._matrix["data"].astype(np.int32)[stored]
        columns = self._matrix["indices"].astype(integer)[stored]
        if len(values) and not (columns.min() >= 0 and columns.max() < self._num_features and values.min() >= 0):
            raise self._inconsistent("indices outside the features, or negative counts")
        parts = (values, columns, (row_ends - row_ends[0]).astype(integer))
        counts = sparse.csr_matrix(parts, shape=(stop - start, self._num_features), copy=False)
        counts.sort_indices()
        return counts if self._gene_columns is None else counts[:, self._gene_columns]

    def blocks(self, num_nonzero: int) -> Iterator[slice]:
        """Cut the rows into blocks of at most so many non-zero counts, or of one row."""
        start = 0
        while start < len(self):
            fitting = int(np.searchsorted(self._row_ends, self._row_ends[start] + num_nonzero, side="right")) - 1
            stop = max(fitting, start + 1)
            yield slice(start, stop)
            start = stop

    def _read_row_ends(self) -> np.ndarray:
        """Read where the counts of each row end, (N + 1,) int64, and check the sizes of all arrays by it."""
        stated_shape = tuple(int(size) for size in self._matrix["shape"][...])
        num_rows, num_nonzero = len(self._matrix["barcodes"]), len(self._matrix["data"])
        row_ends: np.ndarray = self._matrix["indptr"].astype(np.int64)[...]
        problem = None
        if stated_shape != (self._num_features, num_rows):
            problem = f"shape {stated_shape} for {self._num_features} features and {num_rows} barcodes"
        elif self._matrix["data"].dtype.kind not in "iu":
            problem = f"counts of type {self._matrix['data'].dtype}"
        elif len(self._matrix["indices"]) != num_nonzero or not _are_row_ends(row_ends, num_rows, num_nonzero):
            problem = "an indptr that does not fit data and indices"
        if problem is not None:
            raise self._inconsistent(problem)
        return row_ends

    def _inconsistent(self, problem: str) -> MagnetError:
        return MagnetError(
            self._path,
            expected="a consistent matrix of raw counts",
            found=problem,
            remedy="copy the file again from Space Ranger's outs folder",
        )


@contextmanager
def open_tenx_h5(path: Path) -> Iterator[TenxFile]:
    """Open a 10x h5 matrix; a malformed file is a `MagnetError`, also where it shows only while it is read."""
    try:
        with h5py.File(path, "r") as file:
            yield TenxFile(path, file["matrix"])
    except (OSError, KeyError) as error:
        raise MagnetError(
            path,
            expected="a 10x feature-barcode matrix (Cell Ranger 3+ or Space Ranger)",
            found=str(error),
            remedy="copy the file again from Space Ranger's outs folder",
        ) from error


def read_tenx_h5(path: Path) -> TenxMatrix:
    """Read a whole 10x h5 matrix; peak memory is about 1.1 times data and indices."""
    with open_tenx_h5(path) as file:
        return TenxMatrix(file.barcodes(), file.genes, file.counts())


def _strings(dataset: h5py.Dataset, rows: slice = slice(None)) -> np.ndarray:
    strings: np.ndarray = dataset.asstr()[rows].astype(str)
    return strings


def _are_row_ends(row_ends: np.ndarray, num_rows: int, num_nonzero: int) -> bool:
    if len(row_ends) != num_rows + 1:
        return False
    return bool(row_ends[0] == 0 and row_ends[-1] == num_nonzero and (np.diff(row_ends) >= 0).all())
