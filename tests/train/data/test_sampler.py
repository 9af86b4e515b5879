import numpy as np
import pytest

from train.data.sampler import SAMPLERS, compact_batches, hilbert_index, random_batches
from train.data.subgraph import edges_among

LATTICE_UM = np.stack(np.meshgrid(np.arange(48), np.arange(48)), axis=-1).reshape(-1, 2) * 8.0


def test_the_curve_visits_every_cell_once_and_steps_to_a_neighbour() -> None:
    cells = np.stack(np.meshgrid(np.arange(16), np.arange(16)), axis=-1).reshape(-1, 2)
    index = hilbert_index(cells, order=4)
    np.testing.assert_array_equal(np.sort(index), np.arange(256))
    steps = np.abs(np.diff(cells[np.argsort(index)], axis=0)).sum(axis=1)
    np.testing.assert_array_equal(steps, np.ones(255))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_epoch_takes_every_row_once_in_batches_of_about_one_size(name: str) -> None:
    batches = SAMPLERS[name](LATTICE_UM, 100, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(len(LATTICE_UM)))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= 100
    assert max(sizes) - min(sizes) <= 1


def test_compact_batches_keep_neighbours_together_and_random_ones_do_not() -> None:
    x, y = (LATTICE_UM / 8).T
    apart = np.maximum(np.abs(x[:, None] - x), np.abs(y[:, None] - y))
    edges = np.argsort(apart + np.eye(len(x)) * 1e6, axis=1)[:, :8]

    def kept(batches: list[np.ndarray]) -> float:
        result: float = sum(edges_among(edges, batch).shape[1] for batch in batches) / edges.size
        return result

    assert kept(compact_batches(LATTICE_UM, 256, np.random.default_rng(0))) > 0.8
    assert kept(random_batches(LATTICE_UM, 256, np.random.default_rng(0))) < 0.2


def test_seams_fall_elsewhere_in_each_epoch() -> None:
    rng = np.random.default_rng(0)
    first, second = (compact_batches(LATTICE_UM, 256, rng) for _ in range(2))
    assert {tuple(batch) for batch in first} != {tuple(batch) for batch in second}


def test_rows_in_one_place_and_a_single_row_are_no_fault() -> None:
    assert [len(batch) for batch in compact_batches(np.zeros((5, 2)), 2, np.random.default_rng(0))] == [2, 2, 1]
    assert [len(batch) for batch in compact_batches(np.zeros((1, 2)), 2, np.random.default_rng(0))] == [1]
