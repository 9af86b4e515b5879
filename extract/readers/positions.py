"""Where barcodes lie, as Space Ranger writes it for Visium and Visium HD, joined to the barcodes of a matrix.

In: `tissue_positions.parquet`, `tissue_positions.csv` (with a header) or `tissue_positions_list.csv` (before Space
Ranger 2.0: without, though some have one), each CSV gzipped or not. Out: centres as (x, y). The files give (row,
column), in full-resolution pixels, in an order that is not the matrix's; both are settled here, once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from extract.readers.tables import check_parquet, content, read_table, readable
from extract.readers.tenx_h5 import TenxMatrix
from magnet_core.errors import MagnetError
from magnet_core.records import Assay

# N barcodes of the matrix, P positions

SCHEMA = {
    "barcode": pl.String,
    "in_tissue": pl.Int8,
    "array_row": pl.Int32,
    "array_col": pl.Int32,
    "pxl_row_in_fullres": pl.Float64,
    "pxl_col_in_fullres": pl.Float64,
}
_BARCODE = pl.col("barcode")
_REMEDY = "copy it again from Space Ranger's outs folder"
_BOUNDS = {  # of a place on an array, of which HD's is 3,350 squares wide, and in an image
    "in_tissue": (0, 1),
    "array_row": (0, 99_999),
    "array_col": (0, 99_999),
    "pxl_row_in_fullres": (-1e7, 1e7),
    "pxl_col_in_fullres": (-1e7, 1e7),
}
_CENTRE = ("pxl_col_in_fullres", "pxl_row_in_fullres")  # (x, y)


def read_positions(path: Path, barcode: pl.Expr = _BARCODE) -> pl.DataFrame:
    """Read all positions, (P) rows with the columns of `SCHEMA`; their names in the file may be in any case.

    `barcode` says what is kept of that column. A position that is no place on an array or in an image is an error.
    """
    expected = f"a {'parquet' if path.suffix == '.parquet' else 'CSV'} file with the columns {', '.join(SCHEMA)}"
    if path.suffix == ".parquet":
        check_parquet(path, list(SCHEMA), expected=expected, remedy=_REMEDY)
    with readable(path, expected=expected, remedy=_REMEDY):
        table = pl.scan_parquet(path) if path.suffix == ".parquet" else _read_csv(path, expected=expected).lazy()
        columns = [pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()]
        named = table.rename(str.lower).select(columns).with_columns(barcode.alias("barcode"))
        positions = named.collect(engine="streaming")
    _check_places(path, positions)
    return positions


def join_positions(
    path: Path, barcodes: pl.Series, positions: pl.DataFrame, *, spell: Callable[[Any], str] = str
) -> pl.DataFrame:
    """Return one position for each barcode, in the order of the barcodes; one without a position is an error.

    `barcodes` may be numbers, if those of the positions are; `spell` writes one out for the message.
    """
    of_matrix = barcodes.alias("barcode").to_frame()
    _check_unique(path, {"matrix": of_matrix["barcode"], "positions": positions["barcode"]})
    joined = of_matrix.join(positions, on="barcode", how="left", maintain_order="left")
    absent = joined["barcode"].filter(joined["in_tissue"].is_null())
    if len(absent):
        raise MagnetError(
            path,
            expected="a position for each of the matrix's barcodes",
            found=f"none for {len(absent)} of {len(joined)}, for example '{spell(absent[0])}'",
            remedy="take matrix and positions from the same Space Ranger run and bin size",
        )
    return joined


def assay_in_tissue(matrix: TenxMatrix, joined: pl.DataFrame, *, pitch_um: float) -> Assay:
    """Keep the rows of the matrix that lie in tissue; `joined` are their positions, row by row."""
    centres_px = centres_of(joined)
    kept = joined["in_tissue"].to_numpy() == 1
    if kept.all():
        return Assay(matrix.barcodes, centres_px, matrix.counts, pitch_um=pitch_um)
    return Assay(matrix.barcodes[kept], centres_px[kept], matrix.counts[kept], pitch_um=pitch_um)


def centres_of(positions: pl.DataFrame) -> np.ndarray:
    """Centres in full-resolution pixels, (row, column) -> (x, y); (P, 2) float64."""
    return positions.select(_CENTRE).to_numpy()


def _read_csv(path: Path, *, expected: str) -> pl.DataFrame:
    text = content(path, expected=expected, remedy=_REMEDY)
    has_header = text.lstrip(b'\xef\xbb\xbf "')[:7].lower() == b"barcode"
    options: dict[str, Any] = {} if has_header else {"new_columns": list(SCHEMA)}
    return read_table(path, expected=expected, remedy=_REMEDY, has_header=has_header, **options)


def _check_places(path: Path, positions: pl.DataFrame) -> None:
    """Refuse empty cells, and numbers that no place has: NaN, infinite, or far beyond any array or image."""
    for name, (least, most) in _BOUNDS.items():
        wrong = positions[name].filter(~positions[name].is_between(least, most).fill_null(False))  # NaN is above all
        if len(wrong):
            raise MagnetError(
                path,
                expected=f"{name} between {least:,.0f} and {most:,.0f}",
                found=f"{len(wrong):,} of {len(positions):,} rows with other values, such as "
                f"{'nothing' if wrong[0] is None else wrong[0]}",
                remedy=_REMEDY,
            )


def _check_unique(path: Path, barcodes: dict[str, pl.Series]) -> None:
    for name, column in barcodes.items():
        if column.n_unique() != len(column):
            raise MagnetError(
                path,
                expected=f"each barcode once in the {name}",
                found=f"{len(column) - column.n_unique()} repeated",
                remedy="copy both files again from Space Ranger's outs folder",
            )
