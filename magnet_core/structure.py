"""How alike two maps of a gene look: the structural similarity (Wang et al. 2004) of scikit-image.

In: prediction and truth of one gene on one slide, and where its bins lie. Out: one number, 1 for equal maps. Bins are
laid on the grid of their own pitch; the similarity is averaged over the places whose whole window was measured.
"""

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity

# N bins of one slide, H × W cells of its map

WINDOWS = (7, 5, 3)  # cells a side: as scikit-image has it by default, or less where sections are small


def map_similarity(prediction: np.ndarray, truth: np.ndarray, centres_um: np.ndarray, *, pitch_um: float) -> float:
    """Return the structural similarity of two maps (N,) of bins at `centres_um` (N, 2); NaN where no window fits.

    The window is the largest of `WINDOWS` that fits somewhere inside the bins, so all systems on a slide share it.
    The measure takes its range of values from the truth. A constant truth has no structure and gives NaN.
    """
    measured = np.isfinite(truth)
    if not measured.any() or np.ptp(truth[measured]) == 0:
        return float("nan")
    cells = np.rint((centres_um - centres_um.min(axis=0)) / pitch_um).astype(np.int64)
    shape = tuple(np.maximum(cells.max(axis=0) + 1, max(WINDOWS)))
    at = tuple(cells[measured].T)
    mask_measured = np.zeros(shape, dtype=bool)
    mask_measured[at] = True
    maps = []
    for values in (truth, prediction):
        drawn = np.zeros(shape)
        drawn[at] = values[measured]
        maps.append(drawn)
    for side in WINDOWS:
        whole = ndimage.binary_erosion(mask_measured, np.ones((side, side)))
        if whole.any():
            spread = np.ptp(truth[measured])
            _, similarity = structural_similarity(*maps, win_size=side, data_range=spread, full=True)
            return float(similarity[whole].mean())
    return float("nan")


def median_pitch_um(centres_um: np.ndarray, edges: np.ndarray) -> float:
    """Median distance of a bin to the nearest of its neighbours `edges` (N, k)."""
    steps = np.linalg.norm(centres_um[edges] - centres_um[:, None], axis=2)
    return float(np.median(steps.min(axis=1)))
