"""Exact neighbours of 500,000 points, against scipy's cKDTree with the same k on the same points.

Prints one line per layout: what, ratio (median over alternating pairs of the run), goal, holds. cKDTree is built and
queried as by default, on one thread; FAISS uses the threads there are.

    python benchmarks/bench_knn.py
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree

from cache.knn import knn_edges

# N points

GOAL = 2.0
NUM_POINTS = 500_000
K = 8
PAIRS = 5


def main() -> None:
    """Measure every layout and print one line for each."""
    for what, coords_um in layouts(np.random.default_rng(0)).items():
        ratio = knn_ratio(coords_um)
        print(f"what: kNN, {what}  ratio: {ratio:.2f}  goal: {GOAL}  holds: {ratio <= GOAL}", flush=True)


def layouts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Coordinates (N, 2) in µm: a grid in raster order and in barcode (random) order, jittered, uniform, clustered."""
    side = int(np.ceil(np.sqrt(NUM_POINTS)))
    cells = np.arange(NUM_POINTS)
    grid = np.stack([cells % side, cells // side], axis=1) * 8.0
    centres, spread = rng.uniform(0, 10_000, (20, 2)), rng.uniform(5, 300, 20)
    of = rng.integers(0, 20, NUM_POINTS)
    return {
        "8 µm grid": grid,
        "8 µm grid, shuffled": rng.permutation(grid),
        "jittered grid": grid + rng.normal(size=grid.shape),
        "uniform": rng.uniform(0, 8.0 * side, grid.shape),
        "clusters": centres[of] + rng.normal(size=grid.shape) * spread[of, None],
    }


def knn_ratio(coords_um: np.ndarray) -> float:
    """Median time of our search over that of cKDTree."""
    ratios = []
    for pair in range(PAIRS):
        ours_s = seconds(lambda: knn_edges(coords_um, K)) if pair % 2 else 0.0
        limit_s = seconds(lambda: cKDTree(coords_um).query(coords_um, K + 1))
        ours_s = ours_s or seconds(lambda: knn_edges(coords_um, K))
        ratios.append(ours_s / limit_s)
    return statistics.median(ratios)


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
