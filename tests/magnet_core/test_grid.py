import numpy as np
import pytest
from scipy import sparse

from magnet_core.grid import cells_of, dilate, find_cells, sum_by_owner, tile, tiles_around


def lattice(columns: int, rows: int, pitch_um: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    return (np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * pitch_um + 100.0


def test_a_spot_square_holds_exactly_seven_by_seven_bins_of_8_um() -> None:
    bins_um = lattice(28, 21, 8.0)
    spots = tile(bins_um, 56.0, pitch_um=8.0)
    owner = spots.rows_of(bins_um)
    assert len(spots) == 4 * 3
    np.testing.assert_array_equal(np.bincount(owner), np.full(12, 49))


def test_the_square_that_holds_a_point_is_the_square_with_the_nearest_centre() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1000, size=(500, 2))
    tiling = tile(points, 128.0)
    distance = np.linalg.norm(points[:, None] - tiling.centres_um[None], ord=np.inf, axis=2)
    np.testing.assert_array_equal(tiling.rows_of(points), distance.argmin(axis=1))


def test_cells_are_column_and_row_and_sorted_by_row() -> None:
    tiling = tile(np.array([[5.0, 15.0], [15.0, 5.0], [5.0, 5.0]]), 10.0)
    np.testing.assert_array_equal(tiling.cells, [[0, 0], [1, 0], [0, 1]])
    np.testing.assert_allclose(tiling.centres_um, np.array([[10.0, 10.0], [20.0, 10.0], [10.0, 20.0]]))


def test_a_point_off_the_tiling_goes_to_the_nearest_square() -> None:
    tiling = tile(np.array([[0.0, 0.0], [100.0, 0.0]]), 10.0)
    far = np.array([[60.0, 5.0], [40.0, 5.0], [5.0, 5.0]])
    np.testing.assert_array_equal(tiling.rows_of(far), [-1, -1, 0])
    np.testing.assert_array_equal(tiling.nearest_rows_of(far), [1, 0, 0])


def test_find_cells_agrees_with_a_dictionary() -> None:
    rng = np.random.default_rng(1)
    cells = np.unique(rng.integers(-5, 6, size=(40, 2)), axis=0)
    cells = cells[np.lexsort((cells[:, 0], cells[:, 1]))]
    wanted = rng.integers(-8, 9, size=(200, 2))
    row_of = {tuple(cell): row for row, cell in enumerate(cells.tolist())}
    np.testing.assert_array_equal(find_cells(cells, wanted), [row_of.get(tuple(cell), -1) for cell in wanted.tolist()])


def test_dilate_takes_the_squares_around_and_none_that_are_absent() -> None:
    tiling = tile(lattice(10, 10, 1.0), 1.0, pitch_um=1.0)
    corner = tiling.rows_of(np.array([[100.5, 100.5]]))
    np.testing.assert_array_equal(tiling.cells[dilate(tiling, corner, hops=1)], [[0, 0], [1, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(dilate(tiling, corner, hops=0), corner)
    assert len(dilate(tiling, np.empty(0, dtype=np.int64), hops=2)) == 0


def test_a_centre_on_an_edge_goes_right_despite_rounding() -> None:
    points = np.array([[0.3 - 1e-12, 0.0], [0.3, 0.0], [0.3 + 1e-12, 0.0]])
    np.testing.assert_array_equal(cells_of(points, 0.1, origin_um=np.zeros(2))[:, 0], [3, 3, 3])


def test_sums_are_those_of_a_loop_and_leave_out_rows_without_owner() -> None:
    rng = np.random.default_rng(2)
    counts = rng.poisson(0.5, size=(30, 7)).astype(np.int32)
    owner = rng.integers(-1, 4, size=30)
    expected = np.zeros((4, 7), dtype=np.int32)
    for row, of in zip(counts, owner, strict=True):
        if of >= 0:
            expected[of] += row
    total = sum_by_owner(sparse.csr_matrix(counts), owner, 4)
    np.testing.assert_array_equal(total.toarray(), expected)
    assert total.dtype == np.int32


def around_slowly(point: np.ndarray, centres: np.ndarray, side: float, paired: int) -> dict[int, float]:
    """Weights by row: (1 - dx)(1 - dy) of the distances in squares, of each square nearer than one in both."""
    weights = {}
    for row, centre in enumerate(centres):
        apart = np.abs(point - centre) / side
        if (apart < 1).all():
            weights[row] = float(np.prod(1 - apart))
    total = sum(weights.values())
    return {row: weight / total for row, weight in weights.items()} if total > 0 else {paired: 1.0}


def summed(rows: np.ndarray, weights: np.ndarray) -> dict[int, float]:
    total: dict[int, float] = {}
    for row, weight in zip(rows.tolist(), weights.tolist(), strict=True):
        if weight:
            total[row] = total.get(row, 0.0) + weight
    return total


def test_tiles_around_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    cells = rng.permutation([(x, y) for x in range(6) for y in range(5)])[:22]  # in any order, some missing
    centres, side = 7.0 + (cells + 0.5) * 56.0, 56.0
    points = rng.uniform(-60, 420, (300, 2))
    paired = np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1)
    around = tiles_around(points, centres, side_um=side, paired=paired)
    np.testing.assert_allclose(around.weights.sum(axis=1), 1, rtol=1e-6)
    for index, point in enumerate(points):
        expected = around_slowly(point, centres, side, int(paired[index]))
        assert summed(around.rows[index], around.weights[index]) == pytest.approx(expected, abs=1e-6)


def test_what_a_point_sees_changes_little_as_it_moves_little() -> None:
    cells = np.array([(x, y) for y in range(4) for x in range(4) if (x, y) != (2, 1)])  # a hole in the tissue
    centres, side, step = (cells + 0.5) * 128.0, 128.0, 0.01
    along = np.arange(0, 4 * 128.0, step)
    for points in (np.stack([along, np.full_like(along, 70.0)], 1), np.stack([along, along[::-1]], 1)):
        held = find_cells(cells, np.floor(points / side).astype(np.int64))
        inside = held >= 0
        around = tiles_around(points, centres, side_um=side, paired=np.where(inside, held, 0))
        weights = np.zeros((len(points), len(cells)))
        np.add.at(weights, (np.arange(len(points))[:, None], around.rows), around.weights)
        jumps = np.abs(np.diff(weights, axis=0)).sum(axis=1)[inside[1:] & inside[:-1]]
        assert jumps.max() < 20 * step / side


def test_of_one_tile_all_is_seen_there() -> None:
    around = tiles_around(
        np.array([[1.0, 2.0], [50, 3]]), np.array([[28.0, 28.0]]), side_um=56.0, paired=np.zeros(2, int)
    )
    np.testing.assert_array_equal((around.rows == 0).all(axis=1), True)
    np.testing.assert_allclose(around.weights.sum(axis=1), 1)
