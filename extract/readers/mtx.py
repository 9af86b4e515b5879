"""10x Genomics' matrix as a folder of three text files: Matrix Market, with barcodes and features beside it.

In: `matrix.mtx`, `barcodes.tsv` and `features.tsv` (`genes.tsv`, without types, before Cell Ranger 3), gzipped or not.
Out: what the h5 file gives: raw counts of barcodes × genes. The matrix is one of features × barcodes, written by row
and column from 1; whole numbers may be stored as real ones.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from extract.readers.outs_files import files_named
from extract.readers.raw_counts import whole_counts
from extract.readers.tables import content, parse_table, read_table
from extract.readers.tenx_h5 import GENE_EXPRESSION, TenxMatrix, genes_of
from extract.readers.texts import short_texts
from magnet_core.errors import MagnetError

# N barcodes, G genes, F features

PARTS = (
    ("matrix.mtx.gz", "matrix.mtx"),
    ("barcodes.tsv.gz", "barcodes.tsv"),
    ("features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv"),
)
HEADER = re.compile(  # with the numbers of rows, columns and entries
    rb"%%MatrixMarket matrix coordinate (?:integer|real) general[ \t]*\r?\n"
    rb"(?:%[^\n]*\n|[ \t]*\r?\n)*[ \t]*(\d{1,12})[ \t]+(\d{1,12})[ \t]+(\d{1,12})[ \t]*(?:\r?\n|$)",
    re.IGNORECASE,
)
ENTRY = {"feature": pl.Int32, "barcode": pl.Int32, "count": pl.Float64}  # exact for every whole number that is a count
LINE_BYTES = 6  # of the shortest entry, '1 1 1' and the end of its line
EXPECTED = "a Matrix Market file of raw counts, coordinate, integer or real, general"
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
    """Read counts (N, G) of int32; `shape` (F, N) is that of its barcodes and features.

    SciPy's reader of the format has been seen to crash on damaged files.
    """
    text = content(path, expected=EXPECTED, remedy=REMEDY)
    found = HEADER.match(text)
    if found is None:
        start = text[:60].decode("utf-8", "replace").splitlines() or [""]
        raise MagnetError(path, expected=EXPECTED, found=f"one that begins '{start[0]}'", remedy=REMEDY)
    rows, columns, entries = (int(number) for number in found.groups())
    problem = None
    if (rows, columns) != shape:
        problem = f"{rows} × {columns} for {shape[0]} features and {shape[1]} barcodes"
    elif entries > len(text) // LINE_BYTES + 1:
        problem = f"{entries:,} entries stated in {len(text):,} bytes"
    if problem is not None:
        raise MagnetError(path, expected=EXPECTED, found=problem, remedy=REMEDY)
    if not entries:
        return sparse.csr_matrix(shape[::-1], dtype=np.int32)
    table = parse_table(
        path, text[found.end() :], expected=EXPECTED, remedy=REMEDY, separator=" ", has_header=False, schema=ENTRY
    )
    return _counts(path, table, shape=shape, entries=entries)


def _counts(path: Path, table: pl.DataFrame, *, shape: tuple[int, int], entries: int) -> sparse.csr_matrix:
    feature, barcode, values = (table[name] for name in ENTRY)
    problem = None
    if len(table) != entries:
        problem = f"{len(table):,} entries, {entries:,} stated"
    elif not all(
        place.is_between(1, most).fill_null(False).all() for place, most in zip((feature, barcode), shape, strict=True)
    ):
        problem = "entries outside the matrix"
    elif values.has_nulls():
        problem = "entries without a value"
    if problem is not None:
        raise MagnetError(path, expected=EXPECTED, found=problem, remedy=REMEDY)
    places = ((barcode - 1).to_numpy(), (feature - 1).to_numpy())
    counts = sparse.csr_matrix((whole_counts(path, values.to_numpy()), places), shape=shape[::-1])
    if counts.nnz != entries:
        raise MagnetError(path, expected=EXPECTED, found=f"{entries - counts.nnz:,} places twice", remedy=REMEDY)
    counts.sort_indices()
    return counts
