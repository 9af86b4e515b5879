"""Bins of a slide that nothing was measured on: a lattice over its tissue.

In: a slide without counts, its µm/px, and perhaps a file that says which tissue is meant. Out: bins of all sizes whose
centre lies in tissue, on the lattice that starts at the slide's top-left corner, without counts and without genes.
Levels are then laid on them as on measured bins.
"""

from math import ceil
from pathlib import Path

import numpy as np

from extract.readers.binning import bin_barcodes
from extract.tissue_file import read_tissue
from magnet_core.errors import MagnetError
from magnet_core.levels import bin_sizes
from magnet_core.records import Assay, Genes, SlideCounts
from magnet_core.slides import SlideImage, thumbnail
from magnet_core.tissue import tissue_mask

PLATFORM = "hne_only"
DRAWN_FINER = 4  # pixels of a mask that is drawn from outlines, along one of a thumbnail
MASK_UM = 8.0  # side of a pixel of the thumbnail that tissue is found on


def bins_in_tissue(slide: SlideImage, mpp: float, *, slide_id: str, tissue: Path | None = None) -> SlideCounts:
    """Lay the bins of all sizes; a slide without tissue is a `MagnetError`.

    Tissue is where the file `tissue` says, else where colour tells.
    """
    longest_px = max(1, ceil(max(slide.size_px) * mpp / MASK_UM))
    if tissue is None:
        picture, scale = thumbnail(slide, longest_px)
        mask = tissue_mask(picture, mpp=mpp / scale)
    else:
        width, height = np.ceil(np.array(slide.size_px) / max(slide.size_px) * longest_px * DRAWN_FINER).astype(int)
        mask = read_tissue(tissue, slide.size_px, mask_px=(int(width), int(height)))
    size_um = np.array(slide.size_px) * mpp
    bins = {um: _lattice(mask, size_um, mpp, bin_um=um) for um in bin_sizes()}
    if not all(len(assay) for assay in bins.values()):
        raise MagnetError(
            f"slide '{slide_id}'",
            expected="H&E-stained tissue, as the slide has no counts" if tissue is None else "tissue within the slide",
            found=f"none on {(tissue or slide.path).name} ({size_um[0] / 1e3:.1f} × {size_um[1] / 1e3:.1f} mm)",
            remedy="check image and µm/px, leave it out, or draw its tissue ('train predict --tissue')"
            if tissue is None
            else "give corners in pixels of the full-resolution image, or leave --tissue out",
        )
    no_genes = np.empty(0, dtype=np.str_)
    return SlideCounts(PLATFORM, Genes(no_genes, no_genes), bins=bins)


def _lattice(mask: np.ndarray, size_um: np.ndarray, mpp: float, *, bin_um: int) -> Assay:
    """Lay the whole bins of one size that lie inside the slide and have their centre on a True of the mask."""
    num_columns, num_rows = (size_um // bin_um).astype(np.int64)
    height, width = mask.shape
    mask_rows = ((np.arange(num_rows) + 0.5) * bin_um / size_um[1] * height).astype(np.int64)
    mask_columns = ((np.arange(num_columns) + 0.5) * bin_um / size_um[0] * width).astype(np.int64)
    row, column = np.nonzero(mask[np.ix_(mask_rows, mask_columns)])
    cells = np.stack([column, row], axis=1)
    return Assay(bin_barcodes(bin_um, cells), (cells + 0.5) * bin_um / mpp, None, pitch_um=float(bin_um))
