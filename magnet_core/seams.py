"""Seams: whether the squares of a context show in a map, as steps at their borders.

In: values of the rows of a level, which rows touch, and the tile of a context that each row is paired with. Out: the
mean |jump| of each gene between touching rows across tile borders ÷ that inside tiles: 1 where no tile shows.
"""

from collections.abc import Mapping

import numpy as np

# N rows of a level, k neighbours, E pairs of touching rows, G genes

TOUCHING_PITCHES = 1.2  # rows side by side are 1 pitch apart, rows corner to corner 1.41
BLOCK_PAIRS = 1 << 16


def touching_pairs(centres_um: np.ndarray, edges: np.ndarray, *, pitch_um: float) -> np.ndarray:
    """Pairs (E, 2) of rows that lie side by side on their lattice, each once, the lower row first.

    They are found by distance, as the lattice may be turned, among the `edges` (N, k) to the nearest rows; of k = 4
    or more, none is missed. `centres_um` is (N, 2), `pitch_um` the distance of rows side by side.
    """
    row = np.repeat(np.arange(len(edges)), edges.shape[1])
    pairs = np.stack([row, edges.ravel()], axis=1)
    apart_um = np.linalg.norm(centres_um[pairs[:, 0]] - centres_um[pairs[:, 1]], axis=1)
    touching: np.ndarray = np.unique(np.sort(pairs[apart_um < TOUCHING_PITCHES * pitch_um], axis=1), axis=0)
    return touching


def seam_ratios(values: np.ndarray, pairs: np.ndarray, owners: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Seam ratios (G,) of each of several tilings, by name; `owners` holds the tile (N,) of each row.

    A pair across borders of two tilings at once, where these coincide, belongs to neither, and one across a border of
    another tiling is not inside this one: such pairs are left out, so that no tiling answers for another's seams.
    """
    crosses = {name: _crosses(pairs, owner) for name, owner in owners.items()}
    ratios = {}
    for name, owner in owners.items():
        others = [crossed for other, crossed in crosses.items() if other != name]
        ratios[name] = seam_ratio(values, pairs[~np.any(others, axis=0)] if others else pairs, owner)
    return ratios


def seam_ratio(values: np.ndarray, pairs: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Mean |jump| over pairs (E, 2) across tile borders ÷ that over pairs inside a tile, of each gene, (G,) float64.

    `values` is (N, G), `owner` (N,) the tile of each row. NaN where no pair crosses a border or none lies inside; 1
    for a gene that does not vary; infinite for one that varies from tile to tile alone.
    """
    crossed = _crosses(pairs, owner)
    across, inside = _mean_jump(values, pairs[crossed]), _mean_jump(values, pairs[~crossed])
    undivided = np.where(np.isnan(across + inside), np.nan, np.where(across > 0, np.inf, 1.0))
    ratio: np.ndarray = np.divide(across, inside, out=undivided, where=inside > 0)
    return ratio


def _crosses(pairs: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Tell of each pair (E,) whether a border lies between its rows."""
    crossed: np.ndarray = owner[pairs[:, 0]] != owner[pairs[:, 1]]
    return crossed


def _mean_jump(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Mean |difference| over pairs, (G,); NaN without any."""
    total = np.zeros(values.shape[1])
    for start in range(0, len(pairs), BLOCK_PAIRS):
        first, second = pairs[start : start + BLOCK_PAIRS].T
        total += np.abs(values[first] - values[second]).sum(axis=0, dtype=np.float64)
    return total / len(pairs) if len(pairs) else np.full(values.shape[1], np.nan)
