"""Exact neighbours of 500,000 points, against scipy's cKDTree with the same k on the same points and threads.

Prints one line per layout and number of threads: what, ratio of wall times, goal, holds, ratio of CPU times. Each time
is the least of the run's alternating calls: other work on the machine only ever adds to it.

    python benchmarks/bench_knn.py
"""

import os
import time
from collections.abc import Callable

import faiss
import numpy as np
from scipy.spatial import cKDTree

from cache.knn import knn_edges

# N points

GOAL = 2.0
NUM_POINTS = 500_000
K = 8
PAIRS = 5


def main() -> None:
    """Measure every layout and print a line for each."""
    for threads in sorted({1, os.cpu_count() or 1}):
        for what, coords_um in layouts(np.random.default_rng(0)).items():
            ratio, cpu_ratio = knn_ratio(coords_um, threads=threads)
            print(
                f"what: kNN, {what}, threads: {threads}  ratio: {ratio:.2f}  goal: {GOAL}  holds: {ratio <= GOAL}  "
                f"CPU: {cpu_ratio:.2f}",
                flush=True,
            )


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


def knn_ratio(coords_um: np.ndarray, *, threads: int) -> tuple[float, float]:
    """Least wall time and least CPU time of our search over those of cKDTree."""
    faiss.omp_set_num_threads(threads)
    ours, limit = [], []
    for _ in range(PAIRS):
        ours.append(seconds(lambda: knn_edges(coords_um, K)))
        limit.append(seconds(lambda: cKDTree(coords_um).query(coords_um, K + 1, workers=threads)))
    wall_ratio, cpu_ratio = np.min(ours, axis=0) / np.min(limit, axis=0)
    return wall_ratio, cpu_ratio


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Wall time and CPU time of one call."""
    wall_start, cpu_start = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall_start, time.process_time() - cpu_start


if __name__ == "__main__":
    main()
