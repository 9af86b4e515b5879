"""Spatial Transcriptomics before Visium, laid out like the her2st data set: 100 µm spots, 200 µm apart.

In: the counts table `cnts/A1.tsv.gz` (spots × genes, rows named "{x}x{y}"), or a folder that holds one; beside it or
in `../spots/` the table `A1_selection.tsv` with x, y, pixel_x (column), pixel_y (row) and `selected`. Out: the
selected spots that have counts, in the order of the counts table. The format states no µm/px: none is made up,
`mpp_source` says what the spot distance suggests.
"""

from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from extract.readers.gene_names import unique_names
from extract.readers.pitch_hint import pitch_hint
from extract.readers.raw_counts import whole_counts
from extract.readers.tables import read_table, readable
from extract.readers.texts import short_texts
from magnet_core.console import logger
from magnet_core.errors import MagnetError
from magnet_core.records import Assay, Genes, SlideCounts

# N spots, G genes

LOOKS_FOR = "a counts table .tsv or .tsv.gz, or a folder with exactly one"
PITCH_UM = 200.0
SUFFIXES = (".tsv.gz", ".tsv")
SPOT_COLUMNS = ("x", "y", "pixel_x", "pixel_y")

MOST_PLACE, MOST_PX = 1e6, 1e7  # of a place on an array, and of one in an image
EXPECTED, REMEDY = "a tab-separated table", "copy it again from where it was published"

log = logger(__name__)


def recognises(path: Path) -> bool:
    """Tell whether the path is a .tsv(.gz), or a folder with exactly one that is not a table of spots."""
    return len(_counts_tables(path)) == 1


def files(path: Path) -> list[Path]:
    """List the counts table and the table of spot positions."""
    tables = _counts_tables(path)
    if len(tables) != 1:
        raise MagnetError(path, expected=LOOKS_FOR, found=f"{len(tables)} tables", remedy="name the table itself")
    return [tables[0], _spots_path(tables[0])]


def read(path: Path) -> SlideCounts:
    """Read counts and spot positions and join them."""
    counts_path, spots_path = files(path)
    names, symbols, counts = _read_counts(counts_path)
    spots = _read_spots(spots_path)
    joined = pl.DataFrame({"name": names}).with_row_index("row").join(spots, on="name", maintain_order="left")
    _report_unmatched(spots_path, names=names, spots=spots, num_joined=joined.height)
    genes = Genes(symbols, unique_names(symbols))
    centres_px = joined.select("pixel_x", "pixel_y").to_numpy()  # pixel_x is the column: already (x, y)
    hint = pitch_hint(joined.select("x", "y").to_numpy(), centres_px, pitch_um=PITCH_UM)
    assay = Assay(
        joined["name"].to_numpy().astype(str),
        centres_px,
        counts[joined["row"].to_numpy()],
        pitch_um=PITCH_UM,
    )
    return SlideCounts("legacy_st", genes, spots=assay, mpp_source=hint)


def _counts_tables(path: Path) -> list[Path]:
    candidates = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    return [file for file in candidates if file.name.endswith(SUFFIXES) and "_selection.tsv" not in file.name]


def _read_counts(path: Path) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Read spot names (N,) and gene symbols (G,) as str, and raw counts (N, G)."""
    # The header is read as a row of its own: as column names, repeated symbols would be renamed.
    table = read_table(path, expected=EXPECTED, remedy=REMEDY, separator="\t", has_header=False, skip_rows=1)
    header = read_table(
        path, expected=EXPECTED, remedy=REMEDY, separator="\t", has_header=False, n_rows=1, infer_schema=False
    )
    symbols = header.row(0)[1:]
    counts = table[:, 1:]
    if counts.width != len(symbols) or not all(dtype.is_numeric() for dtype in counts.dtypes):
        raise MagnetError(
            path,
            expected=f"a row of {len(symbols)} whole numbers per spot, as many as the header names genes",
            found=f"{counts.width} columns, of type {', '.join(sorted({str(dtype) for dtype in counts.dtypes}))}",
            remedy="give the raw counts as published, spots in rows and genes in columns",
        )
    names = short_texts(path, table[:, 0].cast(pl.String).fill_null("").to_list(), what="names of spots")
    _check_unique(path, names)
    genes = short_texts(path, ["" if symbol is None else symbol for symbol in symbols], what="names of genes")
    return names, genes, sparse.csr_matrix(whole_counts(path, counts.to_numpy()))


def _spots_path(counts_path: Path) -> Path:
    section = counts_path.name
    for suffix in SUFFIXES:
        section = section.removesuffix(suffix)
    folders = (counts_path.parent.parent / "spots", counts_path.parent)
    candidates = [folder / f"{section}_selection{suffix}" for folder in folders for suffix in SUFFIXES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise MagnetError(
        counts_path,
        expected=f"a table of spot positions, {section}_selection.tsv, in ../spots or beside it",
        found="neither",
        remedy="copy it there",
    )


def _read_spots(path: Path) -> pl.DataFrame:
    """Read name "{x}x{y}", x, y, pixel_x and pixel_y of the selected spots."""
    table = read_table(path, expected=EXPECTED, remedy=REMEDY, separator="\t")
    absent = [column for column in SPOT_COLUMNS if column not in table.columns]
    if absent:
        raise MagnetError(
            path,
            expected=f"the columns {', '.join(SPOT_COLUMNS)}",
            found=f"no {', no '.join(absent)}",
            remedy="give the selection table that came with the counts",
        )
    expected = f"numbers in {', '.join(SPOT_COLUMNS)} and selected"
    with readable(path, expected=expected, remedy="give the selection table that came with the counts"):
        selected = table.filter(pl.col("selected") == 1) if "selected" in table.columns else table
        spots = selected.select(
            pl.format("{}x{}", pl.col("x").cast(pl.Int32), pl.col("y").cast(pl.Int32)).alias("name"),
            pl.col(SPOT_COLUMNS).cast(pl.Float64),
        )
    for column in SPOT_COLUMNS:
        most = MOST_PX if column.startswith("pixel") else MOST_PLACE
        if not spots[column].is_between(-most, most).fill_null(False).all():
            raise MagnetError(
                path,
                expected=f"numbers up to {most:,.0f} in {column}",
                found="empty cells, or values that no place has",
                remedy="give the selection table that came with the counts",
            )
    _check_unique(path, spots["name"].to_numpy().astype(str))
    return spots


def _check_unique(path: Path, names: np.ndarray) -> None:
    unique, times = np.unique(names, return_counts=True)
    if len(unique) != len(names):
        raise MagnetError(
            path,
            expected="each spot once",
            found=f"'{unique[times.argmax()]}' {times.max()} times",
            remedy="remove the repeated rows",
        )


def _report_unmatched(path: Path, *, names: np.ndarray, spots: pl.DataFrame, num_joined: int) -> None:
    """Warn how many spots and how many rows of counts have no partner; none that has one is an error."""
    if num_joined == 0:
        examples = f"'{names[0]}'" if len(names) else "no rows"
        raise MagnetError(
            path,
            expected=f"spots named as in the counts table ({examples})",
            found=f"'{spots['name'][0]}'" if spots.height else "no selected spot",
            remedy="give counts and spots of the same section",
        )
    if spots.height > num_joined:
        log.warning("%s: %d of %d spots have no counts and are left out", path, spots.height - num_joined, spots.height)
    if len(names) > num_joined:
        log.warning(
            "%s: %d of %d rows of counts have no selected spot and are left out",
            path,
            len(names) - num_joined,
            len(names),
        )
