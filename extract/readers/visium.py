"""Visium v1 and v2 as Space Ranger 1 to 4 write it: 55 µm spots, 100 µm apart in a honeycomb.

In: `outs/`, or a folder with `outs/` in it:

    filtered_feature_bc_matrix.h5, or the folder filtered_feature_bc_matrix/, or the raw one of either
    spatial/tissue_positions.csv, tissue_positions_list.csv or tissue_positions.parquet    (or beside the matrix)

A CSV may be gzipped. Out: the spots in tissue. `scalefactors_json.json` is not read: µm/px from 55 /
spot_diameter_fullres has been seen to be off by 21 %. None is made up; `mpp_source` says what the spot distance
suggests.
"""

from pathlib import Path

import numpy as np
import polars as pl

from extract.readers.matrices import has_matrix, matrix_files, read_matrix
from extract.readers.outs_files import files_named
from extract.readers.pitch_hint import pitch_hint
from extract.readers.positions import assay_in_tissue, centres_of, join_positions, read_positions
from magnet_core.errors import MagnetError
from magnet_core.records import SlideCounts

# P positions

LOOKS_FOR = (
    "a folder with filtered_feature_bc_matrix.h5, or the folder of that name, "
    "and spatial/tissue_positions.csv or tissue_positions_list.csv"
)
PITCH_UM = 100.0
POSITIONS = (
    "tissue_positions.csv",
    "tissue_positions_list.csv",
    "tissue_positions.parquet",
    "tissue_positions.csv.gz",
    "tissue_positions_list.csv.gz",
)
LARGEST_ARRAY = 14_336  # spots of the 11 mm array; the 6.5 mm array has 4,992


def recognises(path: Path) -> bool:
    """Tell whether a matrix lies in the folder, and positions beside it or in `spatial/`."""
    return _positions_files(_outs(path)) != []


def files(path: Path) -> list[Path]:
    """List the matrix and the positions."""
    outs = _outs(path)
    positions = _positions_files(outs)
    if not positions:
        raise MagnetError(
            path, expected=LOOKS_FOR, found="no such files", remedy="give Space Ranger's outs folder as counts"
        )
    return [*matrix_files(outs), positions[0]]


def read(path: Path) -> SlideCounts:
    """Read matrix and positions and join them by barcode."""
    *matrix_paths, positions_path = files(path)
    positions = read_positions(positions_path)
    if len(positions) > LARGEST_ARRAY:
        raise MagnetError(
            positions_path,
            expected=f"a Visium array, of 4,992 or {LARGEST_ARRAY:,} spots",
            found=f"{len(positions):,} positions",
            remedy="for Visium HD, give the outs folder that holds binned_outputs",
        )
    matrix = read_matrix(matrix_paths)
    joined = join_positions(positions_path, pl.Series(matrix.barcodes), positions)
    return SlideCounts(
        "visium",
        matrix.genes,
        spots=assay_in_tissue(matrix, joined, pitch_um=PITCH_UM),
        mpp_source=pitch_hint(_honeycomb(positions), centres_of(positions), pitch_um=PITCH_UM),
    )


def _outs(path: Path) -> Path:
    return path / "outs" if (path / "outs").is_dir() else path


def _positions_files(outs: Path) -> list[Path]:
    """List the files of positions, the preferred file first; an empty list where there is no matrix."""
    if not has_matrix(outs):
        return []
    return [file for name in POSITIONS for folder in (outs / "spatial", outs) for file in files_named(folder, name)]


def _honeycomb(positions: pl.DataFrame) -> np.ndarray:
    """Places (P, 2) in units of the pitch: columns count half steps, every second row lies between two others."""
    return positions.select(pl.col("array_col") / 2, pl.col("array_row") * 3**0.5 / 2).to_numpy()
