"""Exact neighbours: the k nearest points in a plane, and the k most similar features.

In: coordinates in µm, or feature rows. Out: neighbour indices. Serves the top-k Euclidean graph of the paper's
section 3 (no node is its own neighbour) and the baselines that retrieve. FAISS proposes in float32, float64 decides.
"""

from types import ModuleType

import numpy as np

from cache.grid_index import build_grid, crowd_side, grid_candidates
from magnet_core.errors import MagnetError, MissingExtraError

# N points, P points that may be proposed, R rows (points still without neighbours), K neighbours, W candidates
# Q queries, M keys, D features

QUANTUM_UM = 1e-3  # distances are rounded to this, so that a regular grid has real ties; the lower index wins
LARGEST_EXTENT_UM = 1e6
SPARE_CANDIDATES = 4  # beyond k: covers the ties at the k-th distance of a regular grid
WIDEST = 512  # candidates a row at most, before every point is compared
EXHAUSTIVE_POINTS = 512  # up to here every pair is compared
LAST_RESORT_PAIRS = 1 << 23  # few rows are left: comparing them with every point beats another grid
CHUNK_PAIRS = 1 << 17  # pairs in float64 at a time
FLOAT32_EPS = float(np.finfo(np.float32).eps)
NO_KEY = np.iinfo(np.int64).max


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
        rows = _settle_on_grids(faiss, points_um, edges, proposed=proposed, rows=rows)
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
    faiss: ModuleType, points_um: np.ndarray, edges: np.ndarray, *, proposed: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Settle rows on coordinate grids, each twice as coarse as the last; return the rows that remain.

    Crowded places are settled on the fine grids. A sparse place waits, unsearched, for a grid on which the 3x3 cells
    around it hold more than k points. A row whose candidates were cut off among ties is asked again for more.
    """
    k = edges.shape[1]
    points32 = (points_um - points_um.mean(axis=0)).astype(np.float32)
    error_um = 4 * FLOAT32_EPS * float(np.abs(points32).max())  # of a distance between rounded coordinates
    side_um, width = crowd_side(points_um[proposed], k // 2 + 1), k + 1 + SPARE_CANDIDATES
    while len(rows) * len(proposed) > LAST_RESORT_PAIRS and width <= WIDEST:
        grid = build_grid(points_um, side_um)
        able = grid.counts_around(proposed)[grid.cell[rows]] > k
        searched = rows[able]
        candidates = grid_candidates(
            faiss, points32, grid=grid, proposed=proposed, asked=searched, width=min(width, len(proposed))
        )
        near_um, cut_um = _settle(points_um, edges, rows=searched, candidates=candidates)
        is_cut = near_um + QUANTUM_UM >= cut_um - 2 * error_um
        is_settled = ~is_cut & (near_um + QUANTUM_UM < grid.reach_um[searched])
        rows = np.sort(np.concatenate([rows[~able], searched[~is_settled]]))
        side_um *= 2
        width *= 2 if is_cut.any() else 1
    return rows


def _settle_on_gpu(
    faiss: ModuleType, points_um: np.ndarray, edges: np.ndarray, *, proposed: np.ndarray, device: str
) -> np.ndarray:
    """Settle all rows from a flat search on the GPU; return those whose candidates are not proven complete.

    The flat search forms squared distances as differences of large float32 sums, hence the wide error.
    """
    points32 = (points_um - points_um.mean(axis=0)).astype(np.float32)
    error_um2 = 32 * FLOAT32_EPS * float(np.square(points32).sum(axis=1).max())
    resources = faiss.StandardGpuResources()
    index = faiss.index_cpu_to_gpu(resources, _ordinal(device), faiss.IndexFlatL2(2))
    index.add(points32[proposed])
    width = min(edges.shape[1] + 1 + SPARE_CANDIDATES, len(proposed))
    _, nearest = index.search(points32, width)
    rows = np.arange(len(points_um))
    near_um, cut_um = _settle(points_um, edges, rows=rows, candidates=proposed[nearest])
    unsettled: np.ndarray = rows[np.square(near_um + QUANTUM_UM) >= np.square(cut_um) - error_um2]
    return unsettled


def _settle_exhaustively(points_um: np.ndarray, edges: np.ndarray, *, proposed: np.ndarray, rows: np.ndarray) -> None:
    """Settle rows by comparing each with every point that may be proposed."""
    step = max(CHUNK_PAIRS // len(proposed), 1)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        everyone = np.broadcast_to(proposed, (len(part), len(proposed)))
        _settle(points_um, edges, rows=part, candidates=everyone)


def _settle(
    points_um: np.ndarray, edges: np.ndarray, *, rows: np.ndarray, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Write the best K of the candidates (R, W) into the edges of `rows` (R,), by (rounded distance, index).

    -1 stands for no candidate. Returns, per row, the distance of its K-th neighbour (infinite if there are fewer) and
    the distance from which on candidates may have been cut off (infinite if the list is not full). A row is proven
    only if the first is clearly below the second, and below the reach of its cells: the caller judges.
    """
    k = edges.shape[1]
    near_um, cut_um = np.empty(len(rows)), np.empty(len(rows))
    x_um, y_um = np.ascontiguousarray(points_um.T)
    step = max(CHUNK_PAIRS // candidates.shape[1], 1)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        row, candidate = rows[part, None], candidates[part]
        distance_um = np.sqrt(np.square(x_um[candidate] - x_um[row]) + np.square(y_um[candidate] - y_um[row]))
        key = np.rint(distance_um / QUANTUM_UM).astype(np.int64) << 32 | candidate
        key[(candidate == row) | (candidate < 0)] = NO_KEY
        if key.shape[1] > 4 * k:
            key = np.partition(key, k - 1, axis=1)[:, :k]
        best = np.sort(key, axis=1)[:, :k]
        edges[rows[part]] = best & 0x7FFFFFFF
        near_um[part] = np.where(best[:, -1] == NO_KEY, np.inf, (best[:, -1] >> 32) * QUANTUM_UM)
        cut_um[part] = np.where(candidate[:, -1] < 0, np.inf, distance_um.max(axis=1))
    return near_um, cut_um


def _distinct_enough(points_um: np.ndarray, *, copies: int) -> np.ndarray:
    """Return the points that may be neighbours, (P,) rising: only the first `copies` of those at one place.

    Ties go to the lower index, so with K+1 copies (one may be the point itself) no other can be among the K.
    """
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
    elif len(points_um) and np.ptp(points_um, axis=0).max() > LARGEST_EXTENT_UM:
        found = f"points up to {np.ptp(points_um, axis=0).max():.3g} µm apart"
    else:
        return points_um
    raise MagnetError(
        "knn_edges",
        expected=f"finite coordinates (N, 2) in µm within {LARGEST_EXTENT_UM:.0e} µm, k of 0 or more",
        found=found,
        remedy="check the unit (µm, not pixels) and the coordinates of the slide",
    )


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
