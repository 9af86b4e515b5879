"""Neighbours equal a literal search over all pairs, ties included, wherever the points lie."""

import sys
from collections.abc import Callable

import numpy as np
import pytest

import cache.knn
from cache.grid_index import build_grid, index_cells, parts_by_cell
from cache.knn import QUANTUM_UM, cosine_neighbours, import_faiss, knn_edges
from magnet_core.errors import MagnetError, MissingExtraError


def knn_reference(coords_um: np.ndarray, k: int) -> np.ndarray:
    """Every pair, one row at a time."""
    num_points = len(coords_um)
    edges = np.empty((num_points, min(k, max(num_points - 1, 0))), np.int32)
    for point in range(num_points):
        step = coords_um - coords_um[point]
        rounded = np.rint(np.sqrt(step[:, 0] ** 2 + step[:, 1] ** 2) / QUANTUM_UM)
        order = np.lexsort((np.arange(num_points), rounded))
        edges[point] = order[order != point][: edges.shape[1]]
    return edges


def tissue_grid(num_points: int, pitch_um: float, rng: np.random.Generator) -> np.ndarray:
    """A regular grid with a ragged outline and holes, in any order, far from the origin and turned by a degree."""
    side = int(1.5 * np.sqrt(num_points))
    cells = rng.permutation(side * side)[:num_points]
    points = np.stack([cells % side, cells // side], axis=1) * pitch_um
    turn = np.deg2rad(1.0)
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    placed: np.ndarray = points + [31_000.0, -7_000.0]
    return placed


def clusters(num_points: int, rng: np.random.Generator) -> np.ndarray:
    centres, spread = rng.uniform(0, 20_000, (7, 2)), rng.uniform(1, 500, 7)
    of = rng.integers(0, 7, num_points)
    return centres[of] + rng.normal(size=(num_points, 2)) * spread[of, None]


def layout(name: str, num_points: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    square = np.stack([np.arange(num_points) % 40, np.arange(num_points) // 40], axis=1) * 8.0
    layouts: dict[str, Callable[[], np.ndarray]] = {
        "grid": lambda: square,
        "tissue": lambda: tissue_grid(num_points, 8.0, rng),
        "spots": lambda: tissue_grid(num_points, 100.0, rng),
        "jitter": lambda: square + rng.normal(size=square.shape),
        "clusters": lambda: clusters(num_points, rng),
        "duplicates": lambda: square[rng.integers(0, num_points // 5, num_points)],
        "one place": lambda: np.full((num_points, 2), 3.5),
        "two places": lambda: np.repeat([[0.0, 0.0], [9e5, 9e5]], num_points // 2, axis=0),
        "line": lambda: np.stack([np.zeros(num_points), np.arange(num_points) * 2.0], axis=1),
        "outlier": lambda: np.concatenate([square[:-1], [[5e5, 5e5]]]),
    }
    return layouts[name]()


LAYOUTS = ["grid", "tissue", "spots", "jitter", "clusters", "duplicates", "one place", "two places", "line", "outlier"]


@pytest.mark.parametrize("k", [1, 6, 8, 21])
@pytest.mark.parametrize("name", LAYOUTS)
def test_neighbours_from_grids_equal_the_reference(name: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.knn, "LAST_RESORT_PAIRS", 0)  # every row must be settled on a grid, if it can be
    points = layout(name, 1200)
    np.testing.assert_array_equal(knn_edges(points, k), knn_reference(points, k))


@pytest.mark.parametrize("name", LAYOUTS)
def test_neighbours_from_all_pairs_equal_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.knn, "EXHAUSTIVE_POINTS", 10_000)
    points = layout(name, 800)
    np.testing.assert_array_equal(knn_edges(points, 8), knn_reference(points, 8))


@pytest.mark.parametrize("num_points", [0, 1, 2, 5, 9])
def test_few_points_have_as_many_neighbours_as_there_are(num_points: int) -> None:
    points = np.random.default_rng(0).uniform(0, 100, (num_points, 2))
    edges = knn_edges(points, 8)

    assert edges.shape == (num_points, min(8, max(num_points - 1, 0)))
    assert edges.dtype == np.int32
    np.testing.assert_array_equal(edges, knn_reference(points, 8))


def test_ties_on_a_small_grid_go_to_the_lower_index() -> None:
    points = np.stack([np.arange(9) % 3, np.arange(9) // 3], axis=1) * 8.0
    edges = knn_edges(points, 4)

    assert edges[4].tolist() == [1, 3, 5, 7]
    assert edges[0].tolist() == [1, 3, 4, 2]
    np.testing.assert_array_equal(knn_edges(points + 1e-5 * np.sin(np.arange(18)).reshape(9, 2), 4), edges)


def test_a_permutation_of_the_points_permutes_the_neighbours() -> None:
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 3000, (3000, 2))
    order = rng.permutation(len(points))
    edges, moved = knn_edges(points, 8), knn_edges(points[order], 8)
    np.testing.assert_array_equal(order[moved], edges[order])


@pytest.mark.parametrize("name", ["grid", "clusters", "line", "outlier"])
@pytest.mark.parametrize("side_um", [9.0, 70.0])
def test_a_grid_finds_every_point_within_a_side_once_wherever_its_plane_is_folded(name: str, side_um: float) -> None:
    points, proposed, asked = layout(name, 400), np.arange(0, 400, 3), np.arange(50, 400)
    grid = build_grid(points, side_um)
    assert grid.cell.max() < np.prod(grid.shape) <= 400
    centred = (points - points.mean(axis=0)).astype(np.float32)
    index = index_cells(import_faiss(), centred, grid=grid, proposed=proposed, asked=asked)
    found_of: dict[int, np.ndarray] = {}
    for part in parts_by_cell(grid, proposed=proposed, asked=asked):
        counts, found = index.within_side(part)
        found_of.update(zip(part.tolist(), np.split(found, np.cumsum(counts)[:-1]), strict=True))

    assert sorted(found_of) == asked.tolist()
    for point, found in found_of.items():
        distance_um = np.linalg.norm(points[proposed] - points[point], axis=1)
        assert len(set(found.tolist())) == len(found)
        assert set(proposed[distance_um < side_um - 0.1]) <= set(found.tolist())
        assert set(found.tolist()) <= set(proposed[distance_um < side_um + 0.1])


@pytest.mark.parametrize("name", LAYOUTS)
def test_neighbours_proposed_by_a_flat_search_equal_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = import_faiss()  # its indices on the CPU stand in for those on a GPU
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda _resources, _ordinal, index: index, raising=False)
    points = layout(name, 800)
    np.testing.assert_array_equal(knn_edges(points, 8, device="cuda:0"), knn_reference(points, 8))


@pytest.mark.parametrize(
    "coords",
    [np.zeros((3, 3)), np.array([[0, np.nan], [1, 1]]), np.array([[0, 0], [2e6, 0]])],
)
def test_coordinates_that_cannot_be_µm_are_refused(coords: np.ndarray) -> None:
    with pytest.raises(MagnetError, match="check the unit"):
        knn_edges(coords, 8)


def test_without_faiss_the_error_names_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"extra 'gpu'.*magnet-hd\[cpu\]"):
        knn_edges(np.random.default_rng(0).uniform(0, 100, (2000, 2)), 8)


def test_cosine_neighbours_equal_the_sorted_cosines() -> None:
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(30, 16)), 100 * rng.normal(size=(200, 16))
    keys[7] = 0
    unit = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (queries, keys)]
    cosines = unit[0] @ unit[1].T
    indices, similarities = cosine_neighbours(queries, keys, 5)

    np.testing.assert_array_equal(indices, np.argsort(-cosines, axis=1)[:, :5])
    np.testing.assert_allclose(similarities, -np.sort(-cosines, axis=1)[:, :5], atol=1e-6)


def test_cosine_neighbours_are_keys_only_and_no_more_than_there_are() -> None:
    features = np.eye(4, dtype=np.float32)
    indices, similarities = cosine_neighbours(features, features[:2], 9)

    assert indices.shape == (4, 2)
    assert indices[0].tolist() == [0, 1]
    assert similarities[3].tolist() == [0, 0]
    with pytest.raises(MagnetError, match="features of one backbone"):
        cosine_neighbours(features, features[:, :3], 1)
