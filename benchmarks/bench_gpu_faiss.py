"""The part `faiss` of `bench_gpu.py`: neighbours on a plane and of features, on a device beside the CPU.

In: drawn points and features. Out: rows of whether the neighbours are the same, and of what the device is worth.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import faiss
import numpy as np
from bench_gpu_rows import Budget, PartRows, Scale
from bench_knn import layouts

from cache.knn import cosine_neighbours, knn_edges

# N points, K neighbours, Q queries

K = 8

Result = TypeVar("Result")


def faiss_search(scale: Scale, rows: PartRows, budget: Budget) -> None:
    """Both searches on the device beside the CPU: whether the neighbours are the same, and what the device is worth.

    Neighbours on a plane are exact on both. Of features, those alike to rounding may change places.
    """
    build = "with" if hasattr(faiss, "StandardGpuResources") else "without"
    rows.note("FAISS", version=faiss.__version__, build=f"{build} GPU support")
    grids = layouts(np.random.default_rng(0))
    for number, (layout, points_um) in enumerate(grids.items(), start=1):
        search = partial(neighbours, points_um[: scale.points])
        found, ratio = both(search, scale, budget, share=number / (len(grids) + 1))
        same = float(np.mean([np.array_equal(*pair) for pair in zip(*found, strict=True)]))
        where = f"{len(found[0]):,} points, {layout}"
        rows.compare(f"kNN, {where}: share of points with equal neighbours", same, 1.0, at_least=True)
        rows.compare(f"kNN, {where}: {scale.device} ÷ cpu", ratio, 1.0)
    queries, keys, width = scale.features
    rng = np.random.default_rng(1)
    of_queries, of_keys = (rng.standard_normal((count, width), np.float32) for count in (queries, keys))
    alike, ratio = both(partial(most_alike, of_queries, of_keys), scale, budget, share=1.0)
    (first, first_cosine), (second, second_cosine) = alike
    where = f"{queries:,} queries in {keys:,} features of {width}"
    same = float(np.mean(first == second))
    rows.compare(f"flat search, {where}: share of equal neighbours", same, 0.999, at_least=True)
    apart = float(np.abs(first_cosine - second_cosine).max())
    rows.compare(f"flat search, {where}: largest difference of a cosine", apart, 1e-5)
    rows.compare(f"flat search, {where}: {scale.device} ÷ cpu", ratio, 1.0)


def neighbours(points_um: np.ndarray, device: str) -> np.ndarray:
    """Neighbours (N, K) on a plane."""
    return knn_edges(points_um, K, device=device)


def most_alike(queries: np.ndarray, keys: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
    """The keys most like each query (Q, K), and their cosines."""
    return cosine_neighbours(queries, keys, K, device=device)


def both(
    search: Callable[[str], Result], scale: Scale, budget: Budget, *, share: float
) -> tuple[tuple[Result, Result], float]:
    """What a search finds on the device and on the CPU, and its least time there over its least time here."""
    found = search(scale.device), search("cpu")  # which warms up the device, and threads
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for _ in budget.repeats(scale.repeats, share=share):
        for place, device in enumerate((scale.device, "cpu")):
            started = time.perf_counter()
            search(device)
            seconds[place].append(time.perf_counter() - started)
    return found, min(seconds[0]) / min(seconds[1])
