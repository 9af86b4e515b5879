"""What the distance between spots suggests about µm/px, for platforms that state none.

In: places on the spot array and in the image. Out: a sentence for the error that asks the user for the µm/px. It is
never used as the resolution: it assumes that the array was found in the right image.
"""

import numpy as np

# N spots


def pitch_hint(places: np.ndarray, centres_px: np.ndarray, *, pitch_um: float) -> str:
    """Fit pixels to places, both (N, 2), and say which µm/px that means; places are in units of the pitch."""
    with_offset = np.column_stack([places, np.ones(len(places))])
    affine, _, rank, _ = np.linalg.lstsq(with_offset, centres_px, rcond=None)
    if rank < 3:
        return "the platform states no µm/px, and its spots are too few to measure their distance"
    pitch_px = abs(np.linalg.det(affine[:2])) ** 0.5
    return f"spots lie {pitch_px:.1f} px apart: {pitch_um / pitch_px:.3f} µm/px at the {pitch_um:.0f} µm pitch"
