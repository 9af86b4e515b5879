import numpy as np
from scipy import sparse

from magnet_core.grid import cells_of, dilate, find_cells, sum_by_owner, tile


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
