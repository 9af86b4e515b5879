"""Rows of raw counts in an order of their own, gathered a part at a time.

In: the counts of a slide as they were read, and which of their rows a level has. Out: those rows, or the stored counts
from one number to another, as blocks of a store want them. All bins of a slide fill gigabytes: no second copy is made.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

# M rows as read, N rows of the level, G genes, Z non-zero counts of the level


@dataclass(frozen=True)
class CountRows:
    """Rows `rows` (N,) of `source` (M, G)."""

    source: sparse.csr_matrix
    rows: np.ndarray

    def matrix(self, rows: slice = slice(None)) -> sparse.csr_matrix:
        """Gather rows, (n, G)."""
        return self.source[self.rows[rows]]

    def row_ends(self) -> np.ndarray:
        """Where the stored counts of each row end, (N + 1,) int64."""
        return np.append(0, np.cumsum(np.diff(self.source.indptr)[self.rows], dtype=np.int64))

    def stored(self, row_ends: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Genes and values (last - first,), each int32, of the stored counts from `first` on, numbered over all rows.

        `row_ends` are this object's own.
        """
        top = int(np.searchsorted(row_ends, first, side="right")) - 1
        bottom = int(np.searchsorted(row_ends, last, side="left"))
        counts = self.matrix(slice(top, bottom))
        part = slice(first - int(row_ends[top]), last - int(row_ends[top]))
        return counts.indices[part].astype(np.int32, copy=False), counts.data[part].astype(np.int32, copy=False)
