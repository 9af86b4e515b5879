"""HEST-1k samples, and other spots in AnnData's format: raw counts in X, spot centres in obsm['spatial'].

In: `st/<id>.h5ad`; the µm/px comes from a metadata table `HEST*.csv` beside it or in the folder above, from the row
whose `id` is the file's name and its column `pixel_size_um_estimated`. Of several tables it is that of the newest
version, by the name (`HEST_v1_1_0.csv`); one that an older table contradicts is warned of. Out: all spots.

`obsm['spatial']` is (x, y) in full-resolution pixels. X may be CSR, CSC or dense; it is never made dense. Elements are
read as AnnData's format says (`categorical` 0.2.0, `nullable-string-array`, `csr_matrix` and `csc_matrix` 0.1.0),
without importing the package: it has no public name for its error about an element that it does not know.
"""

import re
from pathlib import Path

import h5py
import numpy as np
import polars as pl
from scipy import sparse

from extract.readers.gene_names import unique_names
from extract.readers.raw_counts import whole_counts
from extract.readers.tables import read_table, readable
from extract.readers.texts import short_texts
from magnet_core.checked_h5 import check_h5
from magnet_core.console import logger
from magnet_core.errors import MagnetError
from magnet_core.records import Assay, Genes, SlideCounts
from magnet_core.slides import MAX_MPP, MIN_MPP

# N spots, G genes

LOOKS_FOR = "an AnnData file .h5ad"
MPP_COLUMN = "pixel_size_um_estimated"
BLOCK_VALUES = 1 << 24  # of a dense X that are held at a time
PARTS = ("obs/{_index}/", "var/{_index}/", "var/gene_ids/?", "obsm/spatial", "X/")
EXPECTED = "an AnnData file with X, obs, var and obsm['spatial']"
REMEDY = "copy it again from where it was published, or write it with anndata 0.8 or later"
VERSION = re.compile(r"_v(\d{1,9}(?:[._]\d{1,9})*)")
MOST_PX = 1e7  # of a place in an image
MPP_CONFLICT = 0.01  # tables that differ by more contradict each other

log = logger(__name__)


def recognises(path: Path) -> bool:
    """Tell whether the path is an .h5ad file."""
    return path.suffix == ".h5ad" and path.is_file()


def files(path: Path) -> list[Path]:
    """List the h5ad file and, where there is one, the table of metadata."""
    if not recognises(path):
        raise MagnetError(path, expected=LOOKS_FOR, found="none", remedy="name the file st/<id>.h5ad itself")
    return [path, *_metadata_tables(path)[:1]]


def read(path: Path) -> SlideCounts:
    """Read counts, names and spot centres, and the µm/px where metadata state it."""
    h5ad, *metadata = files(path)
    check_h5(h5ad, PARTS, expected=EXPECTED, remedy=REMEDY)
    try:
        with h5py.File(h5ad, "r") as file:
            barcodes, symbols = _names(h5ad, file["obs"]), _names(h5ad, file["var"])
            ids = _text(h5ad, file["var/gene_ids"]) if "gene_ids" in file["var"] else symbols
            centres_px = np.asarray(file["obsm/spatial"][...], dtype=np.float64)
            counts = _read_counts(h5ad, file["X"], shape=(len(barcodes), len(symbols)))
    except (OSError, KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:  # from h5py and NumPy
        raise MagnetError(h5ad, expected=EXPECTED, found=str(error), remedy=REMEDY) from error
    _check(h5ad, barcodes=barcodes, num_genes=len(symbols), centres_px=centres_px, counts=counts)
    mpp = _stated_mpp(metadata[0], sample_id=h5ad.stem) if metadata else None
    _warn_of_other_versions(h5ad, mpp)
    return SlideCounts(
        "hest",
        Genes(unique_names(ids), unique_names(symbols)),
        spots=Assay(barcodes, centres_px, counts),
        mpp=mpp,
        mpp_source=_mpp_source(h5ad, metadata, mpp),
    )


def _names(path: Path, table: h5py.Group) -> np.ndarray:
    return _text(path, table[table.attrs["_index"]])


def _text(path: Path, column: h5py.Dataset | h5py.Group) -> np.ndarray:
    """Read a column of text: plain, categorical, or nullable."""
    if isinstance(column, h5py.Group):
        if "codes" in column:
            codes = column["codes"][...]
            if codes.ndim != 1 or codes.dtype.kind not in "iu" or codes.min(initial=0) < 0:
                raise ValueError(f"codes of a categorical that name no category in '{column.name}'")
            values: np.ndarray = _text(path, column["categories"])[codes]
            return values
        return _text(path, column["values"])
    if column.ndim != 1:
        raise ValueError(f"'{column.name}' of shape {column.shape}")
    is_text = h5py.check_string_dtype(column.dtype) is not None
    texts = column.asstr("utf-8")[...] if is_text else column[...].astype(str)
    return short_texts(path, texts, what="names of genes and spots")


def _read_counts(path: Path, stored: h5py.Dataset | h5py.Group, *, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Read X (N, G) as CSR of int32; a value that is no whole number from 0 on is an error."""
    encoding = stored.attrs.get("encoding-type") if isinstance(stored, h5py.Group) else "array"
    found = tuple(int(size) for size in (stored.attrs["shape"] if isinstance(stored, h5py.Group) else stored.shape))
    if found != shape:
        raise ValueError(f"X of shape {found} for {shape[0]} spots and {shape[1]} genes")
    if isinstance(stored, h5py.Dataset):
        block_rows = max(BLOCK_VALUES // max(shape[1], 1), 1)
        blocks = (stored[start : start + block_rows] for start in range(0, len(stored), block_rows))
        parts = [sparse.csr_matrix(whole_counts(path, block, what="counts in X")) for block in blocks]
        matrix = sparse.vstack(parts, "csr") if parts else sparse.csr_matrix(shape, dtype=np.int32)
    elif encoding in ("csr_matrix", "csc_matrix"):
        matrix = _read_sparse(path, stored, is_csr=encoding == "csr_matrix", shape=shape)
    else:
        raise ValueError(f"X of encoding '{encoding}'")
    counts = sparse.csr_matrix(matrix)
    counts.sort_indices()
    return counts


def _read_sparse(path: Path, stored: h5py.Group, *, is_csr: bool, shape: tuple[int, int]) -> sparse.spmatrix:
    values, indices, ends = (stored[name][...] for name in ("data", "indices", "indptr"))
    num_rows, num_columns = shape if is_csr else shape[::-1]
    if any(part.ndim != 1 for part in (values, indices, ends)) or any(
        part.dtype.kind not in "iu" for part in (indices, ends)
    ):
        raise ValueError("X with indices that are no whole numbers")
    fits = len(ends) == num_rows + 1 and ends[0] == 0 and ends[-1] == len(values) == len(indices)
    if not fits or (ends[1:] < ends[:-1]).any():
        raise ValueError("X with an indptr that does not fit data and indices")
    if len(indices) and not (indices.min() >= 0 and indices.max() < num_columns):
        raise ValueError("X with indices outside of it")
    parts = (whole_counts(path, values, what="counts in X"), indices, ends)
    return sparse.csr_matrix(parts, shape=shape) if is_csr else sparse.csc_matrix(parts, shape=shape)


def _check(
    path: Path, *, barcodes: np.ndarray, num_genes: int, centres_px: np.ndarray, counts: sparse.csr_matrix
) -> None:
    problem = None
    if counts.shape != (len(barcodes), num_genes):
        problem = f"X of shape {counts.shape} for {len(barcodes)} spots and {num_genes} genes"
    elif centres_px.shape != (len(barcodes), 2) or not (np.abs(centres_px) <= MOST_PX).all():  # never for NaN
        problem = f"obsm['spatial'] of shape {centres_px.shape}, or with values that no place has"
    elif len(np.unique(barcodes)) != len(barcodes):
        problem = f"{len(barcodes) - len(np.unique(barcodes))} repeated names of spots"
    if problem is not None:
        raise MagnetError(
            path,
            expected="one row of counts and one centre (x, y) for each spot",
            found=problem,
            remedy="copy it again from where it was published",
        )


def _metadata_tables(path: Path) -> list[Path]:
    """List the tables of metadata, the newest version first, and of one version that which lies nearer."""
    tables = [table for folder in (path.parent, path.parent.parent) for table in sorted(folder.glob("HEST*.csv"))]
    return sorted(tables, key=_version, reverse=True)


def _version(table: Path) -> tuple[int, ...]:
    stated = VERSION.search(table.stem)
    return tuple(int(number) for number in re.split("[._]", stated[1])) if stated else ()


def _stated_mpp(path: Path, *, sample_id: str) -> float | None:
    """Return the µm/px of one sample, None where the table has no row or no number for it."""
    expected, remedy = (
        f"a CSV with the columns id and {MPP_COLUMN}",
        "copy it again from HEST-1k, or take it away and state mpp in samples.csv",
    )
    table = read_table(path, expected=expected, remedy=remedy, infer_schema=False)
    with readable(path, expected=expected, remedy=remedy):
        table = table.select("id", pl.col(MPP_COLUMN).cast(pl.Float64))
    of_sample = table.filter(pl.col("id") == sample_id)[MPP_COLUMN].drop_nulls().drop_nans()
    if not len(of_sample):
        return None
    mpp: float = of_sample[0]
    if not MIN_MPP <= mpp <= MAX_MPP:
        raise MagnetError(
            path,
            expected=f"a {MPP_COLUMN} of '{sample_id}' between {MIN_MPP} and {MAX_MPP:.0f}",
            found=f"{mpp:g}",
            remedy=remedy,
        )
    return mpp


def _warn_of_other_versions(h5ad: Path, mpp: float | None) -> None:
    """Warn of tables that contradict the newest; one that cannot be read says nothing."""
    newest, *older = _metadata_tables(h5ad) or [h5ad]
    for table in older:
        try:
            other = _stated_mpp(table, sample_id=h5ad.stem)
        except MagnetError as error:
            log.warning("%s", error)
            continue
        if other is not None and (mpp is None or abs(other / mpp - 1) > MPP_CONFLICT):
            stated = "none" if mpp is None else f"{mpp:g}, which is taken"
            log.warning(
                "%s: µm/px of '%s': %s states %s; %s states %g", h5ad, h5ad.stem, newest.name, stated, table.name, other
            )


def _mpp_source(h5ad: Path, metadata: list[Path], mpp: float | None) -> str:
    if mpp is not None:
        return f"{MPP_COLUMN} in {metadata[0].name}"
    if metadata:
        return f"{metadata[0].name} states none for '{h5ad.stem}'"
    return f"no metadata table HEST*.csv lies beside {h5ad.name}"
