"""How a slide's fine rows are cut into subgraphs for training.

`compact`  rows along a Hilbert curve, so that a batch is a neighbourhood; the curve is shifted anew each epoch, so that
           the seams between batches fall elsewhere.
`random`   any rows of the slide, as in the authors' code: of a bin's 8 neighbours hardly one is in its batch.
"""

from collections.abc import Callable

import numpy as np

# N rows of a slide

_ORDER = 12  # the curve fills a square of 4,096 cells a side, whatever the size of the slide


def compact_batches(centres_um: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut all rows into batches of neighbours; sizes differ by one row at most, and none exceeds `batch_size`."""
    return _cut(along_curve(centres_um, shift=rng.uniform(0, 1, size=2)), batch_size)


def random_batches(centres_um: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut all rows into batches of any rows."""
    return _cut(rng.permutation(len(centres_um)), batch_size)


def along_curve(centres_um: np.ndarray, *, shift: np.ndarray | float = 0.0) -> np.ndarray:
    """Return the rows (N,) in their order along the curve, moved by `shift`, 0 … 1 as a part of the slide's extent."""
    low, high = centres_um.min(axis=0), centres_um.max(axis=0)
    extent = max(float((high - low).max()), 1.0)
    shifted = (centres_um - low) / extent + shift  # within 0 … 2 in both axes
    cells = (shifted * (2 ** (_ORDER - 1) - 1)).astype(np.int64)
    return np.argsort(hilbert_index(cells, order=_ORDER), kind="stable")


SAMPLERS: dict[str, Callable[[np.ndarray, int, np.random.Generator], list[np.ndarray]]] = {
    "compact": compact_batches,
    "random": random_batches,
}


def hilbert_index(cells: np.ndarray, *, order: int) -> np.ndarray:
    """Return the position (N,) int64 of each cell (N, 2) along the Hilbert curve over a square of side 2^order."""
    x, y = cells[:, 0].copy(), cells[:, 1].copy()
    index = np.zeros(len(cells), dtype=np.int64)
    for level in range(order - 1, -1, -1):
        side = 1 << level
        right, lower = (x & side) > 0, (y & side) > 0
        index += side * side * ((3 * right) ^ lower)
        mirrored = ~lower & right
        x[mirrored], y[mirrored] = side - 1 - (x[mirrored] & (side - 1)), side - 1 - (y[mirrored] & (side - 1))
        turned = ~lower
        x[turned], y[turned] = y[turned].copy(), x[turned].copy()
    return index


def _cut(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return [np.sort(part) for part in np.array_split(rows, -(-len(rows) // batch_size))]
