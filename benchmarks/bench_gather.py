"""Gather of 256 random rows from the store, against the same fancy index on a numpy memmap.

Prints one line per row size: what, ratio (median over alternating pairs of the run), goal, holds. Both files are in
the page cache; both results are fresh copies.

    python benchmarks/bench_gather.py
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from cache.reader import ArrayFile
from cache.writer import ArrayWriter

# N rows, T tokens, D features

GOAL = 1.25
ROWS = 256
PAIRS = 101
SHAPES = {
    "coordinates (N,2) float64": ((500_000, 2), "float64"),
    "pooled (N,512) float16": ((100_000, 512), "float16"),
    "pooled (N,2048) float16": ((50_000, 2048), "float16"),
    "tokens (N,16,2048) float16": ((6_000, 16, 2048), "float16"),
    "bin pixels (N,3,112,112) uint8": ((8_000, 3, 112, 112), "uint8"),
}


def main() -> None:
    """Measure every row size and print one line for each."""
    with tempfile.TemporaryDirectory() as folder:
        for what, (shape, dtype) in SHAPES.items():
            ratio = gather_ratio(Path(folder), shape, dtype=dtype)
            print(f"what: gather, {what}  ratio: {ratio:.2f}  goal: {GOAL}  holds: {ratio <= GOAL}", flush=True)


def gather_ratio(folder: Path, shape: tuple[int, ...], *, dtype: str) -> float:
    """Median time of the store's gather over that of the memmap's, on the same rows."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 100, shape, np.uint8).astype(dtype)
    array.tofile(folder / "array.bin")
    with ArrayWriter(folder / "array.lmdb", {}) as writer:
        writer.put("array", array)
        writer.commit()
    mapped = np.memmap(folder / "array.bin", dtype, "r", shape=shape)
    stored = ArrayFile(folder / "array.lmdb")
    ratios = []
    for pair in range(PAIRS):
        rows = rng.integers(0, shape[0], ROWS)
        gathers = [partial(mapped.__getitem__, rows), partial(stored.gather, "array", rows)]
        turn = 1 if pair % 2 else -1  # each goes first in half of the pairs
        (limit_s, limit), (ours_s, ours) = [timed(gather) for gather in gathers[::turn]][::turn]
        np.testing.assert_array_equal(ours, limit)
        ratios.append(ours_s / limit_s)
    return statistics.median(ratios)


def timed(call: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
