"""Xenium's transcripts.parquet counted on a lattice of bins, streamed: memory grows with the bins, not the transcripts.

In: one row a transcript, x_location and y_location in µm, feature_name, qv. Out: the genes by name, and the counts of
the bins that hold at least one transcript of a gene with qv ≥ 20 (Xenium's own threshold, Q20).
"""

from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from extract.readers.binning import BinnedCounts
from extract.readers.tables import check_parquet, readable
from extract.readers.texts import short_texts
from magnet_core.errors import MagnetError
from magnet_core.records import Genes

# N bins, G genes

MIN_QV = 20.0
MOST_UM = 200_000.0  # a slide is 75 mm long
COLUMNS = ("x_location", "y_location", "feature_name", "qv", "is_gene")
EXPECTED = "a parquet file with x_location, y_location, feature_name and qv"
REMEDY = "copy it again from Xenium's output folder"
CONTROLS = (  # what is no gene, by name: versions before 2.0 have no column is_gene
    "NegControl",
    "BLANK_",
    "antisense_",
    "UnassignedCodeword_",
    "DeprecatedCodeword_",
    "Intergenic_Region_",
)


def count_transcripts(path: Path, *, bin_um: int) -> tuple[Genes, BinnedCounts]:
    """Count in bins of `bin_um` from the origin; genes are sorted by name, which serves as their id too."""
    check_parquet(path, COLUMNS, expected=EXPECTED, remedy=REMEDY)
    with readable(path, expected=EXPECTED, remedy=REMEDY):
        transcripts = _of_genes(pl.scan_parquet(path))
        names = transcripts.select("feature_name").unique().collect(engine="streaming")["feature_name"].sort()
        table = _count(transcripts, names, bin_um=bin_um)
    if table.is_empty():
        raise MagnetError(
            path,
            expected=f"transcripts of genes with qv of {MIN_QV:.0f} or more",
            found="none",
            remedy="check that this is the output of a whole run",
        )
    _check_places(path, table, bin_um=bin_um)
    gene_names = short_texts(path, names.to_list(), what="names of genes")
    return Genes(gene_names, gene_names), _binned(table, num_genes=len(gene_names))


def _of_genes(transcripts: pl.LazyFrame) -> pl.LazyFrame:
    name = pl.col("feature_name").cast(pl.String)  # bytes in the first versions
    if "is_gene" in transcripts.collect_schema():
        is_gene = pl.col("is_gene")
    else:
        is_gene = ~pl.any_horizontal(name.str.starts_with(prefix) for prefix in CONTROLS)
    return transcripts.filter((pl.col("qv") >= MIN_QV) & is_gene).with_columns(feature_name=name)


def _count(transcripts: pl.LazyFrame, names: pl.Series, *, bin_um: int) -> pl.DataFrame:
    """Count by row and column of the bin, and gene; sorted by them."""
    keys = {
        "row": (pl.col("y_location") / bin_um).floor().cast(pl.Int32),
        "column": (pl.col("x_location") / bin_um).floor().cast(pl.Int32),
        "gene": pl.col("feature_name").cast(pl.Enum(names)).to_physical(),
    }
    counted = transcripts.select(**keys).group_by(*keys).agg(pl.len().alias("count"))
    return counted.collect(engine="streaming").sort(*keys)


def _check_places(path: Path, table: pl.DataFrame, *, bin_um: int) -> None:
    """Refuse transcripts beyond any slide: their bins would be numbered wrong, or fill the memory."""
    for axis in ("column", "row"):
        least, most = (int(cell) for cell in (table[axis].min(), table[axis].max()))  # type: ignore[arg-type]
        if least < 0 or most * bin_um > MOST_UM:
            raise MagnetError(
                path,
                expected=f"transcripts from 0 to {MOST_UM:,.0f} µm along both axes",
                found=f"some at {(least if least < 0 else most) * bin_um:,} µm",
                remedy=REMEDY,
            )


def _binned(table: pl.DataFrame, *, num_genes: int) -> BinnedCounts:
    """Take the sorted table apart: a new bin begins where row or column change."""
    cells = table.select("column", "row").to_numpy().astype(np.int64)
    is_first = np.ones(len(cells), dtype=bool)
    is_first[1:] = (cells[1:] != cells[:-1]).any(axis=1)
    first = np.flatnonzero(is_first)
    parts = (table["count"].to_numpy().astype(np.int32), table["gene"].to_numpy(), np.append(first, len(cells)))
    return BinnedCounts(cells[first], sparse.csr_matrix(parts, shape=(len(first), num_genes)))
