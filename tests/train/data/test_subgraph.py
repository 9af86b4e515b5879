import numpy as np
import torch

from magnet_core.symmetry import NUM_SYMMETRIES, turn
from train.data.subgraph import edges_among, within_hops

RING = np.array([[5, 1], [0, 2], [1, 3], [2, 4], [3, 5], [4, 0]])  # six nodes, each with its two neighbours


def test_hops_reach_what_a_breadth_first_search_reaches() -> None:
    np.testing.assert_array_equal(within_hops(RING, np.array([0]), hops=0), [0])
    np.testing.assert_array_equal(within_hops(RING, np.array([0]), hops=1), [0, 1, 5])
    np.testing.assert_array_equal(within_hops(RING, np.array([0, 0, 2]), hops=1), [0, 1, 2, 3, 5])
    np.testing.assert_array_equal(within_hops(RING, np.array([0]), hops=9), np.arange(6))


def test_edges_run_from_the_neighbour_to_the_node_that_looks_and_are_renumbered() -> None:
    edges = np.array([[1, 2], [2, 0], [0, 3], [0, 1]])  # node 3 is looked at by 2 only
    got = edges_among(edges, np.array([0, 2, 3]))
    literal = {
        (position_of_source, position)
        for position, node in enumerate([0, 2, 3])
        for source in edges[node].tolist()
        if source in (0, 2, 3)
        for position_of_source in [[0, 2, 3].index(source)]
    }
    assert set(map(tuple, got.T.tolist())) == literal == {(1, 0), (0, 1), (2, 1), (0, 2)}


def test_a_row_without_neighbours_in_the_batch_has_no_edges() -> None:
    assert edges_among(RING, np.array([0, 3])).shape == (2, 0)


def test_the_eight_turns_are_the_symmetries_of_the_square() -> None:
    patch = torch.arange(2 * 3 * 3 * 3).reshape(2, 3, 3, 3)
    turned = [turn(patch, symmetry) for symmetry in range(NUM_SYMMETRIES)]
    torch.testing.assert_close(turned[0], patch)
    assert len({tuple(one.flatten().tolist()) for one in turned}) == NUM_SYMMETRIES
    for one in turned:
        torch.testing.assert_close(one[:, 1, 1], patch[:, 1, 1])  # the centre stays, channels stay together
        corners = {tuple(one[0, row, column].tolist()) for row in (0, 2) for column in (0, 2)}
        assert corners == {tuple(patch[0, row, column].tolist()) for row in (0, 2) for column in (0, 2)}
