"""Exact neighbours: the k nearest points in a plane, and the k most similar features.

In: coordinates in µm, or feature rows. Out: neighbour indices. Serves the top-k Euclidean graph of the paper's
section 3 (no node is its own neighbour) and the baselines that retrieve. FAISS proposes in float32, float64 decides.
"""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from types import ModuleType

import numpy as np

from cache.grid_index import CellIndex, build_grid, crowd_side, index_cells, parts_by_cell
from magnet_core.errors import MagnetError, MissingExtraError

# N points, P points that may be proposed, R rows (points still without neighbours), K neighbours, F candidates
# Q queries, M keys, D features

QUANTUM_UM = 1e-3  # distances are rounded to this, so that a regular grid has real ties; the lower index wins
LARGEST_EXTENT_UM = 1e6
SHARE_IN_CELL = (
    0.45  # of the points asked for: a circle of a cell's side, π times as large, holds them all and some more
)
ENOUGH = 3  # times the points asked for in 3x3 cells: the circle of a cell's side holds a third of these
PATIENCE = 2  # grids that a place with as many points as are asked for waits for more
COARSER = 1.7  # a grid's side over that of the one before
SPARE_CANDIDATES = 4  # beyond k, on the GPU: covers the ties at the k-th distance of a regular grid
EXHAUSTIVE_POINTS = 512  # up to here every pair is compared
LAST_RESORT_PAIRS = 1 << 21  # few rows are left: comparing them with every point beats another grid
CHUNK_PAIRS = 1 << 17  # pairs in float64 at a time
FLOAT32_EPS = float(np.finfo(np.float32).eps)
NO_KEY = np.iinfo(np.int64).max
IRRATIONAL = (5**0.5 - 1) / 2


def knn_edges(coords_um: np.ndarray, k: int, *, device: str = "cpu") -> np.ndarray:
    """Return the K = min(k, N-1) nearest other points of each point, (N, K) int32, ordered by (distance, index).

    `coords_um` is (N, 2) float64. Distances are Euclidean, rounded to `QUANTUM_UM`, and ties go to the lower index: the
    answer is exact and the same on every device. On a CUDA device with a GPU build of FAISS, a flat search on the
    GPU proposes first. Raises `MissingExtraError` where FAISS is needed and not installed.
    """
    points_um = _checked_points(coords_um, k)
    edges = np.empty((len(points_um), min(k, max(len(points_um) - 1, 0))), np.int32)
    if edges.size == 0:
        return edges
    proposed = _distinct_enough(points_um, copies=edges.shape[1] + 1)
    rows = np.arange(len(points_um))
    if len(points_um) > EXHAUSTIVE_POINTS:
        faiss = import_faiss()
        if _on_gpu(faiss, device):
            rows = _settle_on_gpu(faiss, points_um, edges, proposed=proposed, device=device)
        # FAISS would wait for its own threads by spinning between two searches: each of ours searches alone instead.
        with ThreadPoolExecutor(faiss.omp_get_max_threads(), "knn", faiss.omp_set_num_threads, (1,)) as pool:
            rows = _settle_on_grids(faiss, points_um, edges, proposed=proposed, rows=rows, pool=pool)
    _settle_exhaustively(points_um, edges, proposed=proposed, rows=rows)
    return edges


def cosine_neighbours(
    queries: np.ndarray, keys: np.ndarray, k: int, *, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the K = min(k, M) rows of `keys` most similar to each query by cosine, the most similar first.

    `queries` (Q, D) and `keys` (M, D) are floats; the keys are the training rows and nothing else. Returns indices
    (Q, K) int64 and similarities (Q, K) float32. A row of zeros has similarity 0 to everything.
    """
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1] or len(keys) == 0 or k < 1:
        raise MagnetError(
            "cosine_neighbours",
            expected="queries (Q, D), keys (M, D) with a key or more, k of 1 or more",
            found=f"{queries.shape}, {keys.shape}, k={k}",
            remedy="pass features of one backbone on both sides",
        )
    faiss = import_faiss()
    index = faiss.IndexFlatIP(keys.shape[1])
    if _on_gpu(faiss, device):
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), _ordinal(device), index)
    index.add(_unit_rows(keys))
    similarities, indices = index.search(_unit_rows(queries), min(k, len(keys)))
    return indices, similarities


def import_faiss() -> ModuleType:
    """Import FAISS, or raise the error that names the extras that bring it."""
    try:
        import faiss
    except ImportError as error:
        where = "neighbour search (extra 'cpu'; extra 'gpu' on a machine with CUDA)"
        raise MissingExtraError(where, package="faiss", extra="cpu") from error
    return faiss


def _settle_on_grids(
    faiss: ModuleType,
    points_um: np.ndarray,
    edges: np.ndarray,
    *,
    proposed: np.ndarray,
    rows: np.ndarray,
    pool: Executor,
) -> np.ndarray:
    """Settle rows by the points within the side of a cell, on coordinate grids each coarser than the last.

    Crowded places are settled on the fine grids. A sparse place waits, unsearched, until the 3x3 cells around it hold
    `ENOUGH` times as many points as are asked for; one that holds as many as that, and waited for more, is searched
    as well: it may lie apart from all others. Returns the rows that remain, which are few.
    """
    k = edges.shape[1]
    points32 = _centred(points_um)
    error_um = 8 * FLOAT32_EPS * float(np.abs(points32).max())  # of a distance between rounded coordinates
    enough = min(ENOUGH * (k + 1), len(proposed))
    side_um = max(crowd_side(points_um[proposed], SHARE_IN_CELL * (k + 1)), 4 * (QUANTUM_UM + error_um))
    waited = np.zeros(len(points_um), dtype=np.int8)
    while len(rows) * len(proposed) > LAST_RESORT_PAIRS:
        grid = build_grid(points_um, side_um)
        around = grid.count_around(proposed)[grid.cell[rows]]
        is_asked = (around >= enough) | ((waited[rows] >= PATIENCE) & (around > k))
        waited[rows] += around > k
        asked, rows = rows[is_asked], rows[~is_asked]
        if len(asked):
            index = index_cells(faiss, points32, grid=grid, proposed=proposed, asked=asked)
            settle = partial(_settle_within_side, points_um, edges, index=index, error_um=error_um)
            rows = np.concatenate([rows, *pool.map(settle, parts_by_cell(grid, proposed=proposed, asked=asked))])
        side_um *= COARSER
    return rows


def _settle_within_side(
    points_um: np.ndarray, edges: np.ndarray, rows: np.ndarray, *, index: CellIndex, error_um: float
) -> np.ndarray:
    """Settle rows by the points within the side of a cell; return those that have too few there."""
    counts, found = index.within_side(rows)
    near_um = _settle(points_um, edges, rows=rows, counts=counts, candidates=found)
    unsettled: np.ndarray = rows[near_um + QUANTUM_UM >= index.grid.side_um - 2 * error_um]
    return unsettled


def _settle_on_gpu(
    faiss: ModuleType, points_um: np.ndarray, edges: np.ndarray, *, proposed: np.ndarray, device: str
) -> np.ndarray:
    """Settle all rows from a flat search on the GPU; return those whose candidates are not proven complete.

    The flat search forms squared distances as differences of large float32 sums, hence the wide error.
    """
    points32 = _centred(points_um)
    error_um2 = 32 * FLOAT32_EPS * float(np.square(points32).sum(axis=1).max())
    resources = faiss.StandardGpuResources()
    index = faiss.index_cpu_to_gpu(resources, _ordinal(device), faiss.IndexFlatL2(2))
    index.add(points32[proposed])
    width = min(edges.shape[1] + 1 + SPARE_CANDIDATES, len(proposed))
    distance_um2, nearest = index.search(points32, width)
    near_um = np.empty(len(points_um))
    for part in np.split(np.arange(len(points_um)), range(CHUNK_PAIRS // width, len(points_um), CHUNK_PAIRS // width)):
        candidates = proposed[nearest[part]].ravel()
        near_um[part] = _settle(points_um, edges, rows=part, counts=np.full(len(part), width), candidates=candidates)
    is_cut = np.square(near_um + QUANTUM_UM) >= distance_um2[:, -1] - error_um2
    return np.flatnonzero(is_cut & (width < len(proposed)))


def _settle_exhaustively(points_um: np.ndarray, edges: np.ndarray, *, proposed: np.ndarray, rows: np.ndarray) -> None:
    """Settle rows by comparing each with every point that may be proposed."""
    step = max(CHUNK_PAIRS // len(proposed), 1)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        everyone = np.tile(proposed, len(part))
        _settle(points_um, edges, rows=part, counts=np.full(len(part), len(proposed)), candidates=everyone)


def _settle(
    points_um: np.ndarray, edges: np.ndarray, *, rows: np.ndarray, counts: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Write the best K of each row's candidates into the edges of `rows` (R,), by (rounded distance, index).

    `counts` (R,) says how many of the candidates (F,) are of each row. Returns the distance of each row's K-th
    neighbour, infinite where there are fewer. A row is proven only if that is clearly below the distance from which on
    candidates may be missing: the caller judges.
    """
    k = edges.shape[1]
    place = points_um.view(np.complex128)[:, 0]
    step_um = (place[candidates] - np.repeat(place[rows], counts)).view(np.float64)
    distance_um = np.sqrt(np.square(step_um[0::2]) + np.square(step_um[1::2]))
    key = np.append(np.rint(distance_um / QUANTUM_UM).astype(np.int64) << 32 | candidates, NO_KEY)
    key[:-1][candidates == np.repeat(rows, counts)] = NO_KEY
    starts = np.cumsum(counts) - counts
    near_um = np.full(len(rows), np.inf)
    for alike in _by_count(counts, at_least=k):
        column = np.arange(counts[alike].max())
        taken = np.where(column < counts[alike, None], starts[alike, None] + column, len(candidates))
        key_of_row = key[taken]
        if len(column) > 4 * k:
            key_of_row = np.partition(key_of_row, k - 1, axis=1)[:, :k]
        best = np.sort(key_of_row, axis=1)[:, :k]
        edges[rows[alike]] = best & 0x7FFFFFFF
        near_um[alike] = np.where(best[:, -1] == NO_KEY, np.inf, (best[:, -1] >> 32) * QUANTUM_UM)
    return near_um


def _by_count(counts: np.ndarray, *, at_least: int) -> Iterator[np.ndarray]:
    """Yield positions of similar counts, none twice as large as another, leaving out those that are too low."""
    left = np.flatnonzero(counts >= at_least)
    while len(left):
        is_alike = counts[left] <= 2 * counts[left].min()
        yield left[is_alike]
        left = left[~is_alike]


def _distinct_enough(points_um: np.ndarray, *, copies: int) -> np.ndarray:
    """Return the points that may be neighbours, (P,) rising: only the first `copies` of those at one place.

    Ties go to the lower index, so with K+1 copies (one may be the point itself) no other can be among the K.
    """
    mixed = np.sort(points_um[:, 0] + IRRATIONAL * points_um[:, 1])
    if (mixed[1:] != mixed[:-1]).all():  # points at one place would have the same sum
        return np.arange(len(points_um))
    place = points_um.view(np.complex128)[:, 0]
    order = np.argsort(place, kind="stable")
    position = np.arange(len(order))
    is_first = np.append(True, place[order][1:] != place[order][:-1])
    copy = position - np.maximum.accumulate(np.where(is_first, position, 0))
    return np.sort(order[copy < copies])


def _checked_points(coords_um: np.ndarray, k: int) -> np.ndarray:
    """Return coordinates as contiguous (N, 2) float64, or raise an error."""
    points_um = np.ascontiguousarray(coords_um, np.float64)
    if points_um.ndim != 2 or points_um.shape[1] != 2 or k < 0:
        found = f"{points_um.shape}, k={k}"
    elif not np.isfinite(points_um).all():
        found = "NaN or infinite coordinates"
    elif len(points_um) and max(map(np.ptp, points_um.T)) > LARGEST_EXTENT_UM:
        found = f"points up to {max(map(np.ptp, points_um.T)):.3g} µm apart"
    else:
        return points_um
    raise MagnetError(
        "knn_edges",
        expected=f"finite coordinates (N, 2) in µm within {LARGEST_EXTENT_UM:.0e} µm, k of 0 or more",
        found=found,
        remedy="check the unit (µm, not pixels) and the coordinates of the slide",
    )


def _centred(points_um: np.ndarray) -> np.ndarray:
    """Return coordinates about their mean, (N, 2) float32."""
    centre_um = [axis_um.mean() for axis_um in points_um.T]
    centred: np.ndarray = (points_um - centre_um).astype(np.float32)
    return centred


def _unit_rows(features: np.ndarray) -> np.ndarray:
    """Scale rows to length 1 (rows of zeros stay 0), contiguous float32."""
    features = np.ascontiguousarray(features, np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1)


def _on_gpu(faiss: ModuleType, device: str) -> bool:
    return device.startswith("cuda") and hasattr(faiss, "StandardGpuResources")


def _ordinal(device: str) -> int:
    """Return the GPU number of 'cuda' or 'cuda:1'."""
    return int(device.partition(":")[2] or 0)
