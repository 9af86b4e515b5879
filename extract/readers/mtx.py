"""10x Genomics' matrix as a folder of three text files: Matrix Market, with barcodes and features beside it.

In: `matrix.mtx`, `barcodes.tsv` and `features.tsv` (`genes.tsv`, without types, before Cell Ranger 3), gzipped or not.
Out: what the h5 file gives: raw counts of barcodes × genes. The matrix is one of features × barcodes, written by row
and column from 1; whole numbers may be stored as real ones.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from scipy import io, sparse

from extract.readers.outs_files import files_named
from extract.readers.raw_counts import whole_counts
from extract.readers.tables import content, read_table
from extract.readers.tenx_h5 import GENE_EXPRESSION, TenxMatrix, genes_of
from extract.readers.texts import short_texts
from magnet_core.errors import MagnetError

# N barcodes, G genes, F features

PARTS = (
    ("matrix.mtx.gz", "matrix.mtx"),
    ("barcodes.tsv.gz", "barcodes.tsv"),
    ("features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv"),
)
LINE_BYTES = 6  # of the shortest entry, '1 1 1' and the end of its line
MOST_FEATURES, MOST_BARCODES = 1 << 20, 1 << 25
REMEDY = "copy the three files again from Space Ranger's outs folder"


def mtx_files(folder: Path) -> list[Path]:
    """List matrix, barcodes and features in a folder; an empty list unless there is one of each."""
    found = [next((files for name in names if (files := files_named(folder, name))), []) for names in PARTS]
    return [files[0] for files in found] if all(len(files) == 1 for files in found) else []


def read_mtx(files: Sequence[Path]) -> TenxMatrix:
    """Read what `mtx_files` has listed."""
    matrix_path, barcodes_path, features_path = files
    barcodes = _columns(barcodes_path, least=1)[0]
    ids, names, *types = _columns(features_path, least=2)
    types = types or [np.full(len(ids), GENE_EXPRESSION)]
    genes, is_gene = genes_of(features_path, ids, names, feature_types=types[0])
    counts = _read_matrix(matrix_path, shape=(len(ids), len(barcodes)))
    return TenxMatrix(barcodes, genes, counts if is_gene.all() else counts[:, np.flatnonzero(is_gene)])


def _columns(path: Path, *, least: int) -> list[np.ndarray]:
    """Read up to three columns of text; rows that have more, such as the place of a gene, may have them."""
    expected = f"a tab-separated table with {least} or more columns and no header"
    table = read_table(
        path, expected=expected, remedy=REMEDY, separator="\t", has_header=False, infer_schema=False, quote_char=None
    )
    if table.width < least:
        raise MagnetError(path, expected=expected, found=f"{table.width}", remedy=REMEDY)
    columns = table.get_columns()[:3]
    return [short_texts(path, column.fill_null("").to_list(), what="barcodes and names of genes") for column in columns]


def _read_matrix(path: Path, *, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Read counts (N, G) of int32; `shape` (F, N) is that of its barcodes and features."""
    expected = "a Matrix Market file of raw counts"
    text = content(path, expected=expected, remedy=REMEDY)
    try:
        rows, columns, entries, layout, field, symmetry = io.mminfo(BytesIO(text))
        problem = None
        if (layout, symmetry) != ("coordinate", "general") or field not in ("integer", "real"):
            problem = f"one that is {layout}, {field} and {symmetry}"
        elif (rows, columns) != shape:
            problem = f"{rows} × {columns} for {shape[0]} features and {shape[1]} barcodes"
        elif not 0 <= entries <= len(text) // LINE_BYTES + 1:
            problem = f"{entries:,} entries stated in {len(text):,} bytes"
        if problem is not None:
            raise MagnetError(path, expected=expected, found=problem, remedy=REMEDY)
        stored = io.mmread(BytesIO(text)).tocoo()
    except (OSError, ValueError, OverflowError, TypeError) as error:
        raise MagnetError(path, expected=expected, found=str(error), remedy=REMEDY) from error
    if stored.nnz != entries or (entries and (min(stored.row.min(), stored.col.min()) < 0)):
        raise MagnetError(path, expected=expected, found="entries outside the matrix", remedy=REMEDY)
    counts = sparse.csr_matrix((whole_counts(path, stored.data), (stored.col, stored.row)), shape=shape[::-1])
    if counts.nnz != entries:
        raise MagnetError(path, expected=expected, found=f"{entries - counts.nnz} entries twice", remedy=REMEDY)
    counts.sort_indices()
    return counts
