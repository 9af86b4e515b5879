"""The lattice on which bins or spots lie, measured from their centres alone.

In: centres in pixels. Out: the distance between neighbours, the turn of the lattice against the image, and whether it
is square (Visium HD, legacy ST) or hexagonal (Visium). What a platform states about itself is checked against this.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

# N centres

_SAMPLE = 4000  # centres that are looked at; the tree holds all of them
_NEXT_RING = 1.3  # of the shortest distance; the diagonal of a square lies at 1.41
_SQUARE_NEIGHBOURS, _HEXAGONAL_NEIGHBOURS = 4, 6


@dataclass(frozen=True)
class Lattice:
    """Distance between neighbouring centres, angle of the lattice in radians, and whether it is hexagonal.

    The angle is meant modulo a quarter turn (hexagonal: a sixth), nearest to 0.
    """

    pitch_px: float
    angle: float
    hexagonal: bool

    @property
    def cell_area_px(self) -> float:
        """Area of the slide that belongs to one centre, in square pixels."""
        return self.pitch_px**2 * (math.sqrt(3) / 2 if self.hexagonal else 1.0)


def measure_lattice(centres_px: np.ndarray) -> Lattice | None:
    """Measure the lattice of centres (N, 2); None where fewer than two of them are apart."""
    looked_at = centres_px[:: max(1, len(centres_px) // _SAMPLE)]
    distances, neighbours = cKDTree(centres_px).query(looked_at, k=_HEXAGONAL_NEIGHBOURS + 1)
    nearest = distances[:, 1]
    if not np.isfinite(nearest).any() or np.median(nearest) == 0:
        return None
    in_ring = distances[:, 1:] < _NEXT_RING * np.median(nearest)
    hexagonal = bool(np.percentile(in_ring.sum(axis=1), 75) > _SQUARE_NEIGHBOURS)
    source, number = np.nonzero(in_ring)
    steps = centres_px[neighbours[source, number + 1]] - looked_at[source]  # (x, y) from a centre to a neighbour
    fold = _HEXAGONAL_NEIGHBOURS if hexagonal else _SQUARE_NEIGHBOURS
    turned = np.exp(1j * fold * np.arctan2(steps[:, 1], steps[:, 0])).mean()
    return Lattice(float(np.hypot(*steps.T).mean()), float(np.angle(turned)) / fold, hexagonal)
