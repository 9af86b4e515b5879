"""Tells whether the counts belong to this slide, by the small picture that Space Ranger keeps of its input image.

In: the files of a sample's counts, and a thumbnail of its slide. Out: how alike the two pictures are, if the vendor's
exists. Both are brought to one size, and only their detail is compared: the outline of tissue on glass, which slides
have in common, is removed, and brightness, contrast and size of the pictures do not matter.

On synthetic slides and real sections, pictures of one slide agree to 0.79 and more, even darkened or shifted by half a
percent; pictures of two slides, or of a slide that is turned over, agree to 0.35 at most.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from extract.readers.outs_files import files_named

# h, w rows and columns of a picture

PICTURES = ("tissue_lowres_image.png", "tissue_hires_image.png")
SAME_SLIDE = 0.6  # pictures that agree less are of two slides
SAME_SHAPE = 0.03  # by which the ratio of width and height may differ
COMPARED_PX, COARSE_PX = 64, 3.0  # side of the squares that are compared; what is coarser than this is left out


def vendor_picture(count_files: Sequence[Path]) -> Path | None:
    """Find the small picture in the folders of the files that counts are read from, or in `spatial/` there."""
    folders = dict.fromkeys(folder for file in count_files for folder in (file.parent, file.parent / "spatial"))
    pictures = (files_named(folder, name) for name in PICTURES for folder in folders)
    return next((files[0] for files in pictures if len(files) == 1), None)


def match_warnings(picture_path: Path, slide_picture: np.ndarray) -> list[str]:
    """Warn if the vendor's picture and the thumbnail of the slide (h, w, 3) do not show the same slide."""
    try:
        with Image.open(picture_path) as image:
            vendors = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises for damaged files
        return [f"{picture_path} cannot be read ({error}): nothing tells whether the counts are of this slide"]
    (height, width), (vendors_height, vendors_width) = slide_picture.shape[:2], vendors.shape[:2]
    agreement = picture_agreement(vendors, slide_picture)
    if abs(width / height / (vendors_width / vendors_height) - 1) > SAME_SHAPE:
        difference = f"that has another shape, {vendors_width} × {vendors_height} px"
    elif agreement is not None and agreement < SAME_SLIDE:
        difference = f"they agree to {agreement:.2f}, those of one slide to 0.8 and more"
    else:
        return []
    return [f"the image is not the one in {picture_path.name} ({difference}): the counts may be of another slide"]


def picture_agreement(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the correlation of the detail of two pictures (h, w, 3), -1 to 1; None if either has no detail."""
    details = [_detail(picture) for picture in (first, second)]
    norms = [float(np.linalg.norm(detail)) for detail in details]
    if min(norms) < COMPARED_PX:  # less than one grey level on average
        return None
    return float((details[0] * details[1]).sum()) / (norms[0] * norms[1])


def _detail(picture: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(picture).convert("L").resize((COMPARED_PX, COMPARED_PX), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float64)
    detail: np.ndarray = values - gaussian_filter(values, COARSE_PX)
    detail -= detail.mean()
    return detail
