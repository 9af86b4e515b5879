"""Xenium transcripts counted in bins of 8 µm, which are summed into those of the other sizes.

In: the output folder, or a folder with `outs/` in it, with the H&E image's alignment beside it or in the folder above:

    transcripts.parquet        x_location, y_location (µm), feature_name, qv, and is_gene where the version has it
    experiment.xenium          pixel_size of the morphology image, 0.2125 µm where the file is not there
    *alignment*.csv            3 × 3, as Xenium Explorer exports it (`<name>_he_imagealignment.csv`)

The alignment maps (x, y, 1) in pixels of the H&E image to (x, y, 1) in pixels of the morphology image, whose origin is
that of the transcripts: µm = pixel_size · (matrix · px). Bins lie on a lattice in µm and are carried to the image by
the inverse. The same matrix states the image's µm/px. Out: the bins in tissue, which are all bins, empty ones too, of
the squares of 32 µm that hold at least five transcripts: a few lie on bare glass, and bins in tissue may have none.
"""

from pathlib import Path

import numpy as np
import polars as pl

from extract.readers.binning import BinnedCounts, bin_barcodes, fill_squares, sum_into_bins
from extract.readers.outs_files import files_named
from extract.readers.tables import read_table
from extract.readers.transcripts import count_transcripts
from magnet_core.errors import MagnetError
from magnet_core.levels import bin_sizes
from magnet_core.records import Assay, SlideCounts
from magnet_core.sealed import read_json
from magnet_core.slides import MAX_MPP, MIN_MPP

# N bins

LOOKS_FOR = "a folder with Xenium's transcripts.parquet"
TRANSCRIPTS, EXPERIMENT, ALIGNMENT = "transcripts.parquet", "experiment.xenium", "alignment*.csv"
FINEST_UM = 8
SQUARE_BINS, SQUARE_MIN_COUNT = 4, 5  # side of a square in 8 µm bins, and what makes it tissue
PIXEL_UM = 0.2125  # of the morphology image, in every Xenium so far
EXPECTED_ALIGNMENT = (
    "3 × 3 numbers with 0, 0, 1 in the last row, that turn, scale and shift image pixels to Xenium pixels"
)
EXPORT_AGAIN = "export the alignment again in Xenium Explorer"
MAX_PX = 1e7  # of the shift; no image is as large
MAX_STRETCH = 1.05  # an image of the same section is turned, shifted and scaled, hardly stretched


def recognises(path: Path) -> bool:
    """Tell whether a table of transcripts lies in the folder."""
    return len(files_named(_outs(path), TRANSCRIPTS)) == 1


def files(path: Path) -> list[Path]:
    """List transcripts and alignment, and experiment.xenium where there is one."""
    outs = _outs(path)
    if not recognises(path):
        raise MagnetError(path, expected=LOOKS_FOR, found="none", remedy="give Xenium's output folder as counts")
    alignments = files_named(outs, ALIGNMENT) or files_named(outs.parent, ALIGNMENT)
    if len(alignments) != 1:
        raise MagnetError(
            outs,
            expected="the alignment of the H&E image, one file *alignment*.csv, in the folder or above it",
            found=", ".join(file.name for file in alignments) or "none",
            remedy="export it in Xenium Explorer, or copy the *_he_imagealignment.csv that came with the image",
        )
    return [*files_named(outs, TRANSCRIPTS), alignments[0], *files_named(outs, EXPERIMENT)[:1]]


def read(path: Path) -> SlideCounts:
    """Count transcripts in bins of 8 µm, sum those into larger ones, and carry all to the image."""
    transcripts_path, alignment_path, *experiment = files(path)
    pixel_um = _pixel_um(experiment[0]) if experiment else PIXEL_UM
    um_of_px = _read_alignment(alignment_path, pixel_um=pixel_um)
    genes, with_transcripts = count_transcripts(transcripts_path, bin_um=FINEST_UM)
    finest = fill_squares(with_transcripts, side=SQUARE_BINS, min_count=SQUARE_MIN_COUNT)
    bins = {
        um: _assay(sum_into_bins(finest.cells, finest.counts, side=um // FINEST_UM), um_of_px, bin_um=um)
        for um in bin_sizes()
    }
    if len(bins[FINEST_UM]):
        _check_inside(alignment_path, bins[FINEST_UM].centres_px)
    return SlideCounts(
        "xenium",
        genes,
        bins=bins,
        mpp=float(abs(np.linalg.det(um_of_px[:2, :2])) ** 0.5),
        mpp_source=f"the alignment matrix {alignment_path.name}",
    )


def _outs(path: Path) -> Path:
    return path / "outs" if (path / "outs").is_dir() else path


def _assay(binned: BinnedCounts, um_of_px: np.ndarray, *, bin_um: int) -> Assay:
    px_of_um = np.linalg.inv(um_of_px)
    centres_um = (binned.cells + 0.5) * bin_um
    centres_px = centres_um @ px_of_um[:2, :2].T + px_of_um[:2, 2]
    return Assay(bin_barcodes(bin_um, binned.cells), centres_px, binned.counts, pitch_um=float(bin_um))


def _pixel_um(path: Path) -> float:
    experiment = read_json(path, expected="pixel_size in µm", remedy="copy it again from Xenium's output folder")
    try:
        pixel_um = float(experiment["pixel_size"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MagnetError(
            path,
            expected="pixel_size in µm",
            found=f"{type(error).__name__}: {error}",
            remedy="copy it again from Xenium's output folder",
        ) from error
    if not MIN_MPP <= pixel_um <= MAX_MPP:
        raise MagnetError(
            path,
            expected=f"a pixel_size between {MIN_MPP} and {MAX_MPP:.0f} µm",
            found=f"{pixel_um:g}",
            remedy="copy it again from Xenium's output folder",
        )
    return pixel_um


def _read_alignment(path: Path, *, pixel_um: float) -> np.ndarray:
    """Read the matrix (3, 3) that takes (x, y, 1) in image pixels to µm; one that no scan can have is an error."""
    table = read_table(path, expected=EXPECTED_ALIGNMENT, remedy=EXPORT_AGAIN, has_header=False)
    try:
        matrix = table.cast(pl.Float64).to_numpy()
    except pl.exceptions.PolarsError as error:
        raise _no_alignment(path, str(error)) from error
    if matrix.shape != (3, 3) or not (np.abs(matrix) <= MAX_PX).all() or not np.allclose(matrix[2], [0, 0, 1]):
        raise _no_alignment(path, f"a table of shape {matrix.shape} that is none")
    um_of_px: np.ndarray = np.diag([pixel_um, pixel_um, 1.0]) @ matrix
    larger, smaller = np.linalg.svd(um_of_px[:2, :2], compute_uv=False)  # µm/px along the two main directions
    if not (smaller >= MIN_MPP and larger <= MAX_MPP and larger <= smaller * MAX_STRETCH):
        raise _no_alignment(path, f"an image of {smaller:.4g} × {larger:.4g} µm/px")
    return um_of_px


def _no_alignment(path: Path, found: str) -> MagnetError:
    return MagnetError(
        path,
        expected=EXPECTED_ALIGNMENT,
        found=found,
        remedy=EXPORT_AGAIN,
    )


def _check_inside(path: Path, centres_px: np.ndarray) -> None:
    """Refuse a matrix that puts the middle bin beyond the image's left or upper edge."""
    middle = np.median(centres_px, axis=0)
    if (middle < 0).any():
        raise MagnetError(
            path,
            expected="transcripts inside the image",
            found=f"their middle at x={middle[0]:.0f}, y={middle[1]:.0f} px",
            remedy="check that the matrix is of this image, and maps image pixels to Xenium pixels, not back",
        )
