"""HEST-1k samples, and other spots in AnnData's format: raw counts in X, spot centres in obsm['spatial'].

In: `st/<id>.h5ad`; the µm/px comes from a metadata table `HEST*.csv` beside it or in the folder above, from the row
whose `id` is the file's name and its column `pixel_size_um_estimated`. Out: all spots. `obsm['spatial']` is (x, y) in
full-resolution pixels. X may be CSR, CSC or dense; it is never made dense. Elements are read as AnnData's format says
(`categorical` 0.2.0, `nullable-string-array`, `csr_matrix` and `csc_matrix` 0.1.0), without importing the package: it
has no public name for its error about an element that it does not know.
"""

from pathlib import Path

import h5py
import numpy as np
import polars as pl
from scipy import sparse

from extract.readers.gene_names import unique_names
from magnet_core.errors import MagnetError
from magnet_core.records import Assay, Genes, SlideCounts

# N spots, G genes

LOOKS_FOR = "an AnnData file .h5ad"
MPP_COLUMN = "pixel_size_um_estimated"
BLOCK_ROWS = 1024  # rows of a dense X that are held at a time


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
    try:
        with h5py.File(h5ad, "r") as file:
            barcodes, symbols = _names(file["obs"]), _names(file["var"])
            ids = _text(file["var/gene_ids"]) if "gene_ids" in file["var"] else symbols
            centres_px = np.asarray(file["obsm/spatial"][...], dtype=np.float64)
            counts = _read_counts(h5ad, file["X"])
    except (OSError, KeyError) as error:
        raise MagnetError(
            h5ad,
            expected="an AnnData file with X, obs, var and obsm['spatial']",
            found=str(error),
            remedy="copy it again from where it was published, or write it with anndata 0.8 or later",
        ) from error
    _check(h5ad, barcodes=barcodes, num_genes=len(symbols), centres_px=centres_px, counts=counts)
    mpp = _stated_mpp(metadata[0], sample_id=h5ad.stem) if metadata else None
    return SlideCounts(
        "hest",
        Genes(unique_names(ids), unique_names(symbols)),
        spots=Assay(barcodes, centres_px, counts),
        mpp=mpp,
        mpp_source=_mpp_source(h5ad, metadata, mpp),
    )


def _names(table: h5py.Group) -> np.ndarray:
    return _text(table[table.attrs["_index"]])


def _text(column: h5py.Dataset | h5py.Group) -> np.ndarray:
    """Read a column of text: plain, categorical, or nullable."""
    if isinstance(column, h5py.Group):
        if "codes" in column:
            values: np.ndarray = _text(column["categories"])[column["codes"][...]]
            return values
        return _text(column["values"])
    values = column.asstr()[...] if h5py.check_string_dtype(column.dtype) else column[...]
    return np.asarray(values).astype(str)


def _read_counts(path: Path, stored: h5py.Dataset | h5py.Group) -> sparse.csr_matrix:
    """Read X (N, G) as CSR of int32; a value that is no whole number from 0 on is an error."""
    if isinstance(stored, h5py.Dataset):
        starts = range(0, len(stored), BLOCK_ROWS)
        matrix = sparse.vstack([sparse.csr_matrix(stored[start : start + BLOCK_ROWS]) for start in starts], "csr")
    else:
        matrix = _read_sparse(stored)
    values = matrix.data
    raw = (values >= 0) & (values == np.rint(values))
    if not raw.all():
        raise MagnetError(
            path,
            expected="raw counts in X, whole numbers from 0 on",
            found=f"{values[~raw][0]:.4g}: X is normalised or scaled",
            remedy="put the raw counts into X; normalisation is a setting of training",
        )
    counts = sparse.csr_matrix((values.astype(np.int32), matrix.indices, matrix.indptr), shape=matrix.shape)
    counts.sort_indices()
    return counts


def _read_sparse(stored: h5py.Group) -> sparse.csr_matrix:
    kinds = {"csr_matrix": sparse.csr_matrix, "csc_matrix": sparse.csc_matrix}
    parts = tuple(stored[name][...] for name in ("data", "indices", "indptr"))
    return kinds[stored.attrs["encoding-type"]](parts, shape=tuple(stored.attrs["shape"])).tocsr()


def _check(
    path: Path, *, barcodes: np.ndarray, num_genes: int, centres_px: np.ndarray, counts: sparse.csr_matrix
) -> None:
    problem = None
    if counts.shape != (len(barcodes), num_genes):
        problem = f"X of shape {counts.shape} for {len(barcodes)} spots and {num_genes} genes"
    elif centres_px.shape != (len(barcodes), 2) or not np.isfinite(centres_px).all():
        problem = f"obsm['spatial'] of shape {centres_px.shape}, or with values that are no numbers"
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
    return [table for folder in (path.parent, path.parent.parent) for table in sorted(folder.glob("HEST*.csv"))]


def _stated_mpp(path: Path, *, sample_id: str) -> float | None:
    """Return the µm/px of one sample, None where the table has no row or no number for it."""
    try:
        table = pl.read_csv(path, infer_schema=False).select("id", pl.col(MPP_COLUMN).cast(pl.Float64))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MagnetError(
            path,
            expected=f"a CSV with the columns id and {MPP_COLUMN}",
            found=str(error),
            remedy="copy it again from HEST-1k, or take it away and state mpp in samples.csv",
        ) from error
    of_sample = table.filter(pl.col("id") == sample_id)[MPP_COLUMN].drop_nulls().drop_nans()
    return of_sample[0] if len(of_sample) else None


def _mpp_source(h5ad: Path, metadata: list[Path], mpp: float | None) -> str:
    if mpp is not None:
        return f"{MPP_COLUMN} in {metadata[0].name}"
    if metadata:
        return f"{metadata[0].name} states none for '{h5ad.stem}'"
    return f"no metadata table HEST*.csv lies beside {h5ad.name}"
