"""How alike two maps of a gene look: the structural similarity (Wang et al. 2004) of scikit-image.

In: prediction and truth of one gene on one slide, and where its bins lie. Out: one number, 1 for equal maps. Bins are
laid on the grid of their own pitch; the similarity is averaged over the places whose whole window was measured.
"""

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity

# N bins of one slide, H × W cells of its map

WINDOW = 7  # cells a side, as scikit-image has it by default


def map_similarity(prediction: np.ndarray, truth: np.ndarray, centres_um: np.ndarray, *, pitch_um: float) -> float:
    """Structural similarity of two maps (N,) of bins at `centres_um` (N, 2), NaN where no window is whole.

    The range of values that the measure needs is the truth's. A truth that is constant has no structure: NaN.
    """
    measured = np.isfinite(truth)
    if not measured.any() or np.ptp(truth[measured]) == 0:
        return float("nan")
    cells = np.rint((centres_um - centres_um.min(axis=0)) / pitch_um).astype(np.int64)
    shape = tuple(np.maximum(cells.max(axis=0) + 1, WINDOW))
    at = tuple(cells[measured].T)
    known = np.zeros(shape, dtype=bool)
    known[at] = True
    whole = ndimage.binary_erosion(known, np.ones((WINDOW, WINDOW)))
    if not whole.any():
        return float("nan")
    maps = []
    for values in (truth, prediction):
        drawn = np.zeros(shape)
        drawn[at] = values[measured]
        maps.append(drawn)
    _, similarity = structural_similarity(*maps, win_size=WINDOW, data_range=np.ptp(truth[measured]), full=True)
    return float(similarity[whole].mean())


def median_pitch_um(centres_um: np.ndarray, edges: np.ndarray) -> float:
    """Median distance of a bin to the nearest of its neighbours `edges` (N, k)."""
    steps = np.linalg.norm(centres_um[edges] - centres_um[:, None], axis=2)
    return float(np.median(steps.min(axis=1)))
