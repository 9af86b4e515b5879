"""Where the tissue is on an H&E thumbnail, told by colour: both stains take away green most.

In: a small picture of the slide. Out: a mask. Glass is grey whatever its brightness, black ink takes all colours alike,
blue and green ink take red most, red ink takes blue as much as green: none of them looks stained. A tint of the glass
is divided out first.
"""

import numpy as np
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label
from skimage.morphology import isotropic_closing

# h, w rows and columns of the picture

SMOOTH_UM = 16.0  # a cell's width: nuclei and the gaps between them count alike
JOIN_UM = 24.0  # half the width of the pale gaps that are closed, such as fat cells have
MIN_TISSUE_UM2 = 150.0**2  # smaller specks are dirt
MIN_HOLE_UM2 = 80.0**2  # smaller gaps, such as vessels, belong to the tissue
GREEN_DENSITY = (0.05, 0.10)  # range of the optical density from which on a pixel is stained; within it, Otsu's
GLASS_TINT = 0.92  # least share of a colour in the light of the glass: what is tinted more is tissue without any glass
MAX_RED, MAX_BLUE = 1.2, 0.85  # densities of red and blue, in parts of the green one


def tissue_mask(rgb: np.ndarray, *, mpp: float) -> np.ndarray:
    """Return the mask (h, w) bool of what is tissue on a picture (h, w, 3) uint8 of `mpp` µm/px; it may be empty."""
    red, green, blue = np.moveaxis(_optical_density(rgb, blur_px=SMOOTH_UM / mpp / 2), -1, 0)
    stained = (green > _threshold(green)) & (red < MAX_RED * green) & (blue < MAX_BLUE * green)
    joined = isotropic_closing(stained, JOIN_UM / mpp)
    without_specks = _without_small(joined, min_px=MIN_TISSUE_UM2 / mpp**2)
    return ~_without_small(~without_specks, min_px=MIN_HOLE_UM2 / mpp**2)


def _optical_density(rgb: np.ndarray, *, blur_px: float) -> np.ndarray:
    """Density (h, w, 3) of each colour over that of the glass, which the brightest hundredth of the picture shows."""
    brightest = np.percentile(rgb.reshape(-1, 3), 99, axis=0).clip(128)
    glass = brightest.clip(GLASS_TINT * brightest.max())
    smooth = gaussian(rgb.astype(np.float32), sigma=blur_px, channel_axis=-1, preserve_range=True)
    density: np.ndarray = -np.log10((smooth.clip(1) / glass).clip(max=1.0))
    return density


def _threshold(green: np.ndarray) -> float:
    """Otsu's threshold, kept within bounds that hold also where there is only glass, or only tissue."""
    low, high = GREEN_DENSITY
    return float(np.clip(threshold_otsu(green), low, high)) if np.ptp(green) else high


def _without_small(mask: np.ndarray, *, min_px: float) -> np.ndarray:
    """Leave out connected parts of fewer than `min_px` pixels."""
    parts = label(mask, connectivity=1)
    large = np.bincount(parts.ravel()) >= min_px
    large[0] = False
    kept: np.ndarray = large[parts]
    return kept
