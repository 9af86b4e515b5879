"""Visium HD as Space Ranger 3 and 4 write it: 8 and 16 µm bins.

In: `outs/`, or a folder with `outs/` or `binned_outputs/` in it, or `binned_outputs/` itself:

    binned_outputs/square_{008,016}um/filtered_feature_bc_matrix.h5
    binned_outputs/square_{008,016}um/spatial/{tissue_positions.parquet, scalefactors_json.json}

Out: the bins in tissue. Matrix and positions have different orders and are joined by barcode. The positions give bin
centres as (row, column) in full-resolution pixels; they are turned to (x, y) here, once.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from extract.readers.tenx_h5 import TenxMatrix, read_tenx_h5
from magnet_core.errors import MagnetError
from magnet_core.records import Assay, Genes, SlideCounts

# N bins in tissue, G genes

LOOKS_FOR = "a folder with binned_outputs/square_008um or square_016um"
BIN_SIZES_UM = (8, 16)
MPP_TOLERANCE = 0.02
SIZE_FOLDER = "square_{:03d}um"
POSITION_COLUMNS = ("barcode", "in_tissue", "pxl_row_in_fullres", "pxl_col_in_fullres")


def recognises(path: Path) -> bool:
    """Tell whether bins of 8 or 16 µm lie below the path."""
    return _binned_outputs(path) is not None


def files(path: Path) -> list[Path]:
    """List matrix, positions and scale factors of each bin size; a missing one is an error."""
    return [file for outputs in _outputs(path).values() for file in outputs]


def read(path: Path) -> SlideCounts:
    """Read the 8 and 16 µm bins, whichever exist."""
    bins: dict[int, Assay] = {}
    genes: dict[int, Genes] = {}
    mpps: dict[int, float] = {}
    for size_um, outputs in _outputs(path).items():
        matrix = read_tenx_h5(outputs.matrix)
        genes[size_um] = matrix.genes
        bins[size_um] = _in_tissue(outputs.positions, matrix, size_um=size_um)
        mpps[size_um] = _microns_per_pixel(outputs.scale_factors, size_um=size_um)
    _check_agreement(path, genes, mpps)
    finest = min(bins)
    return SlideCounts(
        "space_ranger_hd",
        genes[finest],
        bins=bins,
        mpp=mpps[finest],
        mpp_source="microns_per_pixel in Space Ranger's scalefactors_json.json",
    )


class _BinOutputs(NamedTuple):
    """The files of one bin size."""

    matrix: Path
    positions: Path
    scale_factors: Path


def _outputs(path: Path) -> dict[int, _BinOutputs]:
    """Find the files of each bin size there is, by size in µm."""
    binned = _binned_outputs(path)
    if binned is None:
        raise MagnetError(path, expected=LOOKS_FOR, found="neither", remedy="give Space Ranger's outs folder as counts")
    folders = {size_um: binned / SIZE_FOLDER.format(size_um) for size_um in _sizes_in(binned)}
    return {
        size_um: _BinOutputs(
            _one_file(folder, "filtered_feature_bc_matrix.h5"),
            _one_file(folder / "spatial", "tissue_positions.parquet"),
            _one_file(folder / "spatial", "scalefactors_json.json"),
        )
        for size_um, folder in folders.items()
    }


def _binned_outputs(path: Path) -> Path | None:
    for folder in (path / "binned_outputs", path / "outs" / "binned_outputs", path):
        if _sizes_in(folder):
            return folder
    return None


def _sizes_in(folder: Path) -> list[int]:
    return [size_um for size_um in BIN_SIZES_UM if (folder / SIZE_FOLDER.format(size_um)).is_dir()]


def _one_file(folder: Path, name: str) -> Path:
    """Find a file by its name, or by its name behind a prefix, as downloads from archives have it."""
    if (folder / name).is_file():
        return folder / name
    prefixed = sorted(folder.glob(f"*{name}"))
    if len(prefixed) == 1:
        return prefixed[0]
    found = ", ".join(file.name for file in prefixed) or "no such file"
    raise MagnetError(
        folder, expected=f"the file {name}", found=found, remedy="copy it from Space Ranger's outs folder"
    )


def _in_tissue(path: Path, matrix: TenxMatrix, *, size_um: int) -> Assay:
    """Join positions to the matrix by barcode, in the matrix's order, and keep the bins in tissue."""
    try:
        positions = pl.read_parquet(path, columns=list(POSITION_COLUMNS))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MagnetError(
            path,
            expected=f"a parquet file with the columns {', '.join(POSITION_COLUMNS)}",
            found=str(error),
            remedy="copy it again from Space Ranger's outs folder",
        ) from error
    barcodes = pl.DataFrame({"barcode": matrix.barcodes}, schema={"barcode": pl.String})
    positions = positions.with_columns(pl.col("barcode").cast(pl.String))
    _check_barcodes(path, barcodes["barcode"], positions["barcode"])
    joined = barcodes.join(positions, on="barcode", how="left", maintain_order="left")
    # (row, column) -> (x, y)
    centres_px = joined.select("pxl_col_in_fullres", "pxl_row_in_fullres").cast(pl.Float64).to_numpy()
    kept = joined["in_tissue"].to_numpy() == 1
    if kept.all():
        return Assay(matrix.barcodes, centres_px, matrix.counts, pitch_um=float(size_um))
    return Assay(matrix.barcodes[kept], centres_px[kept], matrix.counts[kept], pitch_um=float(size_um))


def _check_barcodes(path: Path, of_matrix: pl.Series, of_positions: pl.Series) -> None:
    absent = of_matrix.filter(~of_matrix.is_in(of_positions.implode()))
    if len(absent):
        raise MagnetError(
            path,
            expected="a position for each of the matrix's barcodes",
            found=f"none for {len(absent)} of {len(of_matrix)}, for example '{absent[0]}'",
            remedy="take matrix and positions from the same Space Ranger run and bin size",
        )
    for name, barcodes in (("matrix", of_matrix), ("positions", of_positions)):
        if barcodes.n_unique() != len(barcodes):
            raise MagnetError(
                path,
                expected=f"each barcode once in the {name}",
                found=f"{len(barcodes) - barcodes.n_unique()} repeated",
                remedy="copy both files again from Space Ranger's outs folder",
            )


def _microns_per_pixel(path: Path, *, size_um: int) -> float:
    """Read microns_per_pixel and check it against the bin size in µm and in pixels."""
    try:
        factors = json.loads(path.read_text(encoding="utf-8"))
        mpp, bin_um, bin_px = (
            float(factors[key]) for key in ("microns_per_pixel", "bin_size_um", "spot_diameter_fullres")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MagnetError(
            path,
            expected="microns_per_pixel, bin_size_um and spot_diameter_fullres",
            found=f"{type(error).__name__}: {error}",
            remedy="copy it again from Space Ranger's outs folder",
        ) from error
    if bin_um != size_um or not (mpp > 0 and bin_px > 0 and abs(bin_um / bin_px / mpp - 1) <= MPP_TOLERANCE):
        raise MagnetError(
            path,
            expected=f"{size_um} µm bins whose size in pixels agrees with microns_per_pixel within 2%",
            found=f"microns_per_pixel {mpp:.5g}, and bin_size_um {bin_um:g} / spot_diameter_fullres {bin_px:.5g} px",
            remedy="take the file from the Space Ranger run of this image and bin size",
        )
    return mpp


def _check_agreement(binned: Path, genes: dict[int, Genes], mpps: dict[int, float]) -> None:
    """Bins of both sizes count the same genes on the same image."""
    finest = min(genes)
    for size_um in genes:
        if not np.array_equal(genes[size_um].ids, genes[finest].ids):
            raise MagnetError(
                binned,
                expected=f"the same genes at {finest} and {size_um} µm",
                found=f"lists of {len(genes[finest])} and {len(genes[size_um])} genes that differ",
                remedy="take both from the same Space Ranger run",
            )
        if abs(mpps[size_um] / mpps[finest] - 1) > MPP_TOLERANCE:
            raise MagnetError(
                binned,
                expected=f"the same µm/px at {finest} and {size_um} µm",
                found=f"{mpps[finest]:.5g} and {mpps[size_um]:.5g}",
                remedy="take both from the same Space Ranger run",
            )
