"""Raw counts of a level, a block of rows at a time, as those of a slide fill gigabytes.

In: a slide's geometry. Out: sparse matrices. Imports nothing slow.
"""

from collections.abc import Iterator

from scipy import sparse

from cache.reader import ArrayFile

# n rows of a block, G genes

_ROWS = 16_384


def read_count_blocks(geometry: ArrayFile, level: str, num_genes: int) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Yield raw counts (n, G) of a measured level by blocks of rows."""
    row_ends = geometry.read(f"{level}/counts/indptr")
    num_rows = len(row_ends) - 1
    for start in range(0, num_rows, _ROWS):
        rows = slice(start, min(start + _ROWS, num_rows))
        first, last = int(row_ends[rows.start]), int(row_ends[rows.stop])
        values, genes = (geometry.slice(f"{level}/counts/{part}", first, last) for part in ("values", "indices"))
        parts = (values, genes, row_ends[rows.start : rows.stop + 1] - first)
        yield rows, sparse.csr_matrix(parts, shape=(rows.stop - rows.start, num_genes))
