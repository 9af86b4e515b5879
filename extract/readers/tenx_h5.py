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
from extract.readers.raw_counts import whole_counts
from extract.readers.texts import short_texts
from magnet_core.checked_h5 import check_h5
from magnet_core.errors import MagnetError
from magnet_core.records import Genes

# N barcodes, G genes, F features of any type, Z non-zero counts

GENE_EXPRESSION = "Gene Expression"
PARTS = (
    *(f"matrix/{name}" for name in ("data", "indices", "indptr", "shape", "barcodes")),
    *(f"matrix/features/{name}" for name in ("id", "name", "feature_type")),
)
EXPECTED = "a 10x feature-barcode matrix (Cell Ranger 3+ or Space Ranger)"
REMEDY = "copy the file again from Space Ranger's outs folder"
BLOCK_VALUES = 1 << 24  # stored as floating point that are held at a time, beside the counts


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
        ids, names, feature_types = (self._texts(features[name]) for name in ("id", "name", "feature_type"))
        self.genes, is_gene = genes_of(path, ids, names, feature_types=feature_types)
        self._num_features = len(ids)
        self._gene_columns = None if is_gene.all() else np.flatnonzero(is_gene)
        self._row_ends = self._read_row_ends()

    def __len__(self) -> int:
        return len(self._row_ends) - 1

    def barcodes(self, rows: slice = slice(None)) -> np.ndarray:
        """Barcodes (n,) str."""
        return self._texts(self._matrix["barcodes"], rows)

    def counts(self, rows: slice = slice(None)) -> sparse.csr_matrix:
        """Raw counts (n, G). HDF5 narrows the int64 indices while it reads: no second copy."""
        start, stop, _ = rows.indices(len(self))
        row_ends = self._row_ends[start : stop + 1]
        stored = slice(int(row_ends[0]), int(row_ends[-1]))
        integer = np.int32 if stored.stop - stored.start <= np.iinfo(np.int32).max else np.int64
        values = self._values(stored)
        columns = self._matrix["indices"].astype(integer)[stored]
        if len(columns) and not (columns.min() >= 0 and columns.max() < self._num_features):
            raise self._inconsistent("indices outside the features")
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

    def _values(self, stored: slice) -> np.ndarray:
        """Stored counts as int32. HDF5 narrows integers while it reads, what does not fit to the largest that does."""
        data = self._matrix["data"]
        if data.dtype.kind in "iu":
            return whole_counts(self._path, data.astype(np.int32)[stored])
        starts = range(stored.start, stored.stop, BLOCK_VALUES)
        parts = [whole_counts(self._path, data[start : min(start + BLOCK_VALUES, stored.stop)]) for start in starts]
        return np.concatenate([np.empty(0, np.int32), *parts])

    def _texts(self, dataset: h5py.Dataset, rows: slice = slice(None)) -> np.ndarray:
        return short_texts(self._path, dataset.asstr("utf-8")[rows], what="barcodes and names of genes")

    def _read_row_ends(self) -> np.ndarray:
        """Read where the counts of each row end, (N + 1,) int64, and check the sizes of all arrays by it."""
        for name in PARTS:
            if (part := self._matrix.file[name]).ndim != 1:
                raise self._inconsistent(f"{name} of shape {part.shape}")
        stated_shape = tuple(int(size) for size in self._matrix["shape"][...])
        num_rows, num_nonzero = len(self._matrix["barcodes"]), len(self._matrix["data"])
        row_ends: np.ndarray = self._matrix["indptr"].astype(np.int64)[...]
        problem = None
        if stated_shape != (self._num_features, num_rows):
            problem = f"shape {stated_shape} for {self._num_features} features and {num_rows} barcodes"
        elif any(self._matrix[name].dtype.kind not in "iu" for name in ("indices", "indptr")):
            problem = "indices that are no whole numbers"
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
            remedy=REMEDY,
        )


@contextmanager
def open_tenx_h5(path: Path) -> Iterator[TenxFile]:
    """Open a 10x h5 matrix; a malformed file is a `MagnetError`, also where it shows only while it is read."""
    check_h5(path, PARTS, expected=EXPECTED, remedy=REMEDY)
    try:
        with h5py.File(path, "r") as file:
            yield TenxFile(path, file["matrix"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:  # all of them from h5py
        raise MagnetError(
            path,
            expected=EXPECTED,
            found=str(error),
            remedy=REMEDY,
        ) from error


def read_tenx_h5(path: Path) -> TenxMatrix:
    """Read a whole 10x h5 matrix; peak memory is about 1.1 times data and indices."""
    with open_tenx_h5(path) as file:
        return TenxMatrix(file.barcodes(), file.genes, file.counts())


def genes_of(path: Path, ids: np.ndarray, names: np.ndarray, *, feature_types: np.ndarray) -> tuple[Genes, np.ndarray]:
    """Return the genes among the features, all (F,), with unique names, and which features they are, (F,) bool."""
    if not len(ids) == len(names) == len(feature_types):
        raise MagnetError(
            path,
            expected="an id, a name and a type of each feature",
            found=f"{len(ids)}, {len(names)} and {len(feature_types)} of them",
            remedy=REMEDY,
        )
    is_gene: np.ndarray = feature_types == GENE_EXPRESSION
    if not is_gene.any():
        raise MagnetError(
            path,
            expected=f"features of type '{GENE_EXPRESSION}'",
            found=f"only {', '.join(sorted(set(feature_types.tolist()))) or 'none'}",
            remedy="choose the gene expression matrix",
        )
    return Genes(ids[is_gene], unique_names(names[is_gene])), is_gene


def _are_row_ends(row_ends: np.ndarray, num_rows: int, num_nonzero: int) -> bool:
    if len(row_ends) != num_rows + 1:
        return False
    return bool(row_ends[0] == 0 and row_ends[-1] == num_nonzero and (np.diff(row_ends) >= 0).all())
