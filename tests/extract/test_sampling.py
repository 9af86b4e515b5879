import numpy as np

from cache.knn import knn_edges
from extract.sampling import sample_rows, sample_windows

LATTICE = np.stack(np.meshgrid(np.arange(120), np.arange(120)), axis=-1).reshape(-1, 2) * 8.0 + 4.0


def draw(how: str, wanted: int, seed: int = 0) -> np.ndarray:
    return sample_rows(LATTICE, wanted, how=how, pitch_um=8.0, window=24, rng=np.random.default_rng(seed))


def test_windows_keep_the_density_of_the_slide_and_uniform_does_not() -> None:
    def median_reach_um(rows: np.ndarray) -> float:
        points = LATTICE[rows]
        edges = knn_edges(points, 8)
        return float(np.median(np.linalg.norm(points[edges[:, -1]] - points, axis=1)))

    assert median_reach_um(draw("windows", 1500)) == np.hypot(8, 8)  # the 8 bins around
    assert median_reach_um(draw("uniform", 1500)) > 20


def test_windows_are_whole_and_stop_once_the_number_is_reached() -> None:
    rows = sample_windows(LATTICE, 1500, side_um=24 * 8.0, rng=np.random.default_rng(3))
    assert 1500 <= len(rows) < 1500 + 24 * 24
    assert len(np.unique(rows)) == len(rows)


def test_all_and_small_slides_keep_every_row() -> None:
    np.testing.assert_array_equal(draw("all", 10), np.arange(len(LATTICE)))
    np.testing.assert_array_equal(draw("windows", len(LATTICE) + 1), np.arange(len(LATTICE)))


def test_the_seed_decides_and_every_row_can_be_drawn() -> None:
    np.testing.assert_array_equal(draw("windows", 1500, seed=1), draw("windows", 1500, seed=1))
    assert not np.array_equal(draw("windows", 1500, seed=1), draw("windows", 1500, seed=2))
    ever = np.unique(np.concatenate([draw("windows", 3000, seed=seed) for seed in range(40)]))
    assert len(ever) == len(LATTICE)
