"""Which bins and spots of a slide are kept (paper section 3: 6,000 bins and 2,500 spots a slide, at random).

`windows`  square windows of whole neighbourhoods, in random order, until the number is reached: the graph a model is
           trained on then has the density of the graph it predicts on.
`uniform`  rows at random, the paper's reading: at 6,000 of 600,000 bins the nearest neighbours lie some 80 µm apart.
`all`      every row in tissue.
"""

import numpy as np

from magnet_core.grid import cells_of

# N points


def sample_rows(
    points_um: np.ndarray, wanted: int, *, how: str, pitch_um: float, window: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the sorted rows that are kept; `windows` keeps whole windows and so may pass `wanted` by part of one."""
    if how == "all" or wanted >= len(points_um):
        return np.arange(len(points_um))
    if how == "uniform":
        return np.sort(rng.choice(len(points_um), size=wanted, replace=False))
    return sample_windows(points_um, wanted, side_um=window * pitch_um, rng=rng)


def sample_windows(points_um: np.ndarray, wanted: int, *, side_um: float, rng: np.random.Generator) -> np.ndarray:
    """Rows of whole square windows of `side_um`, taken in random order until `wanted` rows are reached, sorted.

    The windows tile the slide from a random offset. A window counts by the rows it holds, so that tissue is drawn in
    proportion to its area and thin rims are as likely as anything else.
    """
    origin_um = points_um.min(axis=0) - rng.uniform(0, side_um, size=2)
    cells = cells_of(points_um, side_um, origin_um=origin_um)
    _, window_of = np.unique(cells, axis=0, return_inverse=True)
    sizes = np.bincount(window_of)
    order = rng.permutation(len(sizes))
    needed = int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1
    return np.flatnonzero(np.isin(window_of, order[:needed]))
