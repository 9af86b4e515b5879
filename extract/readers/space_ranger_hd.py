"""Visium HD as Space Ranger 3 and 4 write it: 8 and 16 µm bins, or 2 µm squares summed into them.

In: `outs/`, or a folder with `outs/` or `binned_outputs/` in it, or `binned_outputs/` itself, or a `square_…um` in it:

    binned_outputs/square_{002,008,016}um/filtered_feature_bc_matrix.h5
    binned_outputs/square_{002,008,016}um/spatial/{tissue_positions.parquet, scalefactors_json.json}

The matrix of 8 or 16 µm may be the folder of that name, and each matrix the raw one, where there is no filtered one.
Out: the bins in tissue. The 2 µm squares are read only where the folder has no larger bins. Anything else in `outs/`
(cells in `segmented_outputs/`, `barcode_mappings.parquet`) is ignored.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from extract.readers.binning import check_bin_barcodes, coarsen
from extract.readers.matrices import matrix_files, read_matrix
from extract.readers.outs_files import one_file
from extract.readers.positions import assay_in_tissue, centres_of, join_positions, read_positions
from extract.readers.squares import SQUARE_UM, sum_squares
from magnet_core.errors import MagnetError
from magnet_core.levels import bin_sizes
from magnet_core.records import Assay, Genes, SlideCounts
from magnet_core.sealed import read_json
from magnet_core.slides import MAX_MPP, MIN_MPP

LOOKS_FOR = "a folder with binned_outputs/square_008um, square_016um or square_002um"
WRITTEN_UM = (8, 16)  # sizes that Space Ranger writes unasked; where one of them lacks, it is not made up
MPP_TOLERANCE = 0.02
MPP_SOURCE = "microns_per_pixel in Space Ranger's scalefactors_json.json"
SIZE_FOLDER = "square_{:03d}um"


def recognises(path: Path) -> bool:
    """Tell whether bins of any size lie below the path."""
    return _binned_outputs(path) is not None


def files(path: Path) -> list[Path]:
    """List matrix, positions and scale factors of each bin size; a missing one is an error."""
    return [
        file
        for outputs in _outputs(path).values()
        for file in (*outputs.matrix, outputs.positions, outputs.scale_factors)
    ]


def read(path: Path) -> SlideCounts:
    """Read the bins of each size, whichever exist, or sum the 2 µm squares into all; further sizes are summed too."""
    bins: dict[int, Assay] = {}
    genes: dict[int, Genes] = {}
    mpps: dict[int, float] = {}
    for size_um, outputs in _outputs(path).items():
        if size_um == SQUARE_UM:
            genes[size_um], bins = sum_squares(outputs.matrix[0], outputs.positions, bin_sizes_um=bin_sizes())
        else:
            matrix = read_matrix(outputs.matrix)
            check_bin_barcodes(outputs.matrix[0], matrix.barcodes, bin_um=size_um)
            genes[size_um] = matrix.genes
            joined = join_positions(outputs.positions, pl.Series(matrix.barcodes), read_positions(outputs.positions))
            bins[size_um] = assay_in_tissue(matrix, joined, pitch_um=float(size_um))
        mpps[size_um] = _microns_per_pixel(outputs.scale_factors, size_um=size_um)
    _check_agreement(path, genes, mpps)
    finest = min(genes)
    for size_um in bin_sizes():
        if size_um not in {*WRITTEN_UM, *bins} and size_um % finest == 0:
            bins[size_um] = coarsen(bins[finest], side=size_um // finest, bin_um=size_um)
    return SlideCounts(
        "space_ranger_hd",
        genes[finest],
        bins=bins,
        mpp=mpps[finest],
        mpp_source=MPP_SOURCE,
    )


def place_files(path: Path) -> list[Path]:
    """List the files that `read_places` reads; a missing one is an error."""
    return [file for files in _places(path).values() for file in files]


def read_places(path: Path) -> SlideCounts:
    """Read where the bins in tissue lie, of each size that is there, without counts and without genes."""
    bins: dict[int, Assay] = {}
    mpps: dict[int, float] = {}
    for size_um, (positions, scale_factors) in _places(path).items():
        in_tissue = read_positions(positions).filter(pl.col("in_tissue") == 1)
        barcodes = in_tissue["barcode"].to_numpy().astype(np.str_)
        check_bin_barcodes(positions, barcodes, bin_um=size_um)
        bins[size_um] = Assay(barcodes, centres_of(in_tissue), None, pitch_um=float(size_um))
        mpps[size_um] = _microns_per_pixel(scale_factors, size_um=size_um)
    no_genes = np.empty(0, dtype=np.str_)
    genes = Genes(no_genes, no_genes)
    _check_agreement(path, dict.fromkeys(mpps, genes), mpps)
    return SlideCounts("space_ranger_hd", genes, bins=bins, mpp=mpps[min(mpps)], mpp_source=MPP_SOURCE)


def _places(path: Path) -> dict[int, tuple[Path, Path]]:
    """Positions and scale factors of each size of bins, by size in µm."""
    binned = _binned_outputs(path)
    sizes = [] if binned is None else [size_um for size_um in _sizes_in(binned) if size_um != SQUARE_UM]
    if binned is None or not sizes:
        raise MagnetError(
            path,
            expected="a folder with binned_outputs/square_008um",
            found="none",
            remedy="give Space Ranger's outs folder",
        )
    folders = {size_um: binned / SIZE_FOLDER.format(size_um) / "spatial" for size_um in sizes}
    return {
        size_um: (one_file(folder, "tissue_positions.parquet"), one_file(folder, "scalefactors_json.json"))
        for size_um, folder in folders.items()
    }


class _BinOutputs(NamedTuple):
    """The files of one bin size; those of the matrix are one h5 file, or three of text."""

    matrix: list[Path]
    positions: Path
    scale_factors: Path


def _outputs(path: Path) -> dict[int, _BinOutputs]:
    """Find the files of each bin size in the folder, by size in µm."""
    binned = _binned_outputs(path)
    if binned is None:
        raise MagnetError(path, expected=LOOKS_FOR, found="neither", remedy="give Space Ranger's outs folder as counts")
    folders = {size_um: binned / SIZE_FOLDER.format(size_um) for size_um in _sizes_in(binned)}
    return {
        size_um: _BinOutputs(
            _matrix_files(folder, size_um=size_um),
            one_file(folder / "spatial", "tissue_positions.parquet"),
            one_file(folder / "spatial", "scalefactors_json.json"),
        )
        for size_um, folder in folders.items()
    }


def _matrix_files(folder: Path, *, size_um: int) -> list[Path]:
    files = matrix_files(folder)
    if size_um == SQUARE_UM and len(files) > 1:
        raise MagnetError(
            folder,
            expected="the matrix of the 2 µm squares as filtered_feature_bc_matrix.h5, which is read block by block",
            found=f"it as text, {files[0].name}",
            remedy="copy the .h5 file, or the folder of the 8 µm bins, from Space Ranger's outs folder",
        )
    return files


def _binned_outputs(path: Path) -> Path | None:
    holds_sizes = path.parent if path.name.startswith("square_") else path
    for folder in (path / "binned_outputs", path / "outs" / "binned_outputs", holds_sizes):
        if _sizes_in(folder):
            return folder
    return None


def _sizes_in(folder: Path) -> list[int]:
    """Return the bin sizes to read from a folder: those of targets, or 2 µm where the folder has none of these."""
    sizes_um = [size_um for size_um in (SQUARE_UM, *bin_sizes()) if (folder / SIZE_FOLDER.format(size_um)).is_dir()]
    return [size_um for size_um in sizes_um if size_um != SQUARE_UM] or sizes_um


def _microns_per_pixel(path: Path, *, size_um: int) -> float:
    """Read microns_per_pixel and check it against the bin size in µm and in pixels."""
    expected, remedy = (
        "microns_per_pixel, bin_size_um and spot_diameter_fullres",
        "copy it again from Space Ranger's outs",
    )
    factors = read_json(path, expected=expected, remedy=remedy)
    try:
        mpp, bin_um, bin_px = (
            float(factors[key]) for key in ("microns_per_pixel", "bin_size_um", "spot_diameter_fullres")
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MagnetError(path, expected=expected, found=f"{type(error).__name__}: {error}", remedy=remedy) from error
    agrees = bin_um == size_um and bin_px > 0 and mpp > 0 and abs(bin_um / bin_px / mpp - 1) <= MPP_TOLERANCE
    if not agrees or not MIN_MPP <= mpp <= MAX_MPP:
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
