"""Squares of tissue that are held out of a slide, where slides of one patient alone are learnt from.

In: where the fine rows of a slide lie. Out: `TissueBlocks`, or none where the slide is too small for them.
"""

from dataclasses import dataclass

import numpy as np

# N points, B blocks

SIDES_UM = (512.0, 256.0, 128.0)  # of a block: the first that leaves enough to judge and to learn from
DRAWS = 256  # places that are tried for blocks of one side
LEAST = 0.5  # of the rows that a share asks to be judged, and of those that it leaves to learn from
MOST = 1.5  # of the rows that a share asks to be judged
FEWEST_ROWS = 16  # that a correlation is taken over


@dataclass(frozen=True)
class TissueBlocks:
    """Squares around `centres_um` (B, 2), and the margin around each, which is neither judged nor learnt from."""

    centres_um: np.ndarray
    side_um: float
    margin_um: float

    def judged(self, points_um: np.ndarray) -> np.ndarray:
        """Which of the points (N, 2) lie in a block, bool (N,)."""
        return self._within(points_um, self.side_um / 2)

    def learnt(self, points_um: np.ndarray, *, side_um: float = 0.0) -> np.ndarray:
        """Which squares of `side_um` around points (N, 2) lie outside of all blocks and margins, bool (N,)."""
        return ~self._within(points_um, self.side_um / 2 + self.margin_um + side_um / 2)

    def _within(self, points_um: np.ndarray, reach_um: float) -> np.ndarray:
        inside = np.zeros(len(points_um), bool)
        for centre_um in self.centres_um:
            inside |= away_um(points_um, centre_um) <= reach_um
        return inside


def draw_blocks(
    points_um: np.ndarray, share: float, *, margin_um: float, rng: np.random.Generator
) -> TissueBlocks | None:
    """Draw blocks around some of the fine rows (N, 2) that hold about a share of them; None on too small a slide."""
    for side_um in SIDES_UM:
        centres_um = _draw_centres(points_um, share, side_um=side_um, margin_um=margin_um, rng=rng)
        if centres_um is not None:
            return TissueBlocks(centres_um, side_um, margin_um)
    return None


def away_um(points_um: np.ndarray, centre_um: np.ndarray) -> np.ndarray:
    """How far points (N, 2) are from a place along the farther of both axes, (N,)."""
    x, y = np.abs(points_um - centre_um).T
    return np.asarray(np.maximum(x, y))


def _draw_centres(
    points_um: np.ndarray, share: float, *, side_um: float, margin_um: float, rng: np.random.Generator
) -> np.ndarray | None:
    num_rows, centres_um = len(points_um), []
    judged, reached = np.zeros(num_rows, bool), np.zeros(num_rows, bool)
    for row in rng.permutation(num_rows)[:DRAWS]:
        if judged.sum() >= share * num_rows:
            break
        if judged[row]:
            continue
        from_row_um = away_um(points_um, points_um[row])
        more, farther = judged | (from_row_um <= side_um / 2), reached | (from_row_um <= side_um / 2 + margin_um)
        too_many = more.sum() > MOST * share * num_rows
        if too_many or (~farther).sum() < LEAST * (1 - share) * num_rows:
            continue
        judged, reached = more, farther
        centres_um.append(points_um[row])
    return np.array(centres_um) if judged.sum() >= max(LEAST * share * num_rows, FEWEST_ROWS) else None
