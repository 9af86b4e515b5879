"""The measure of seams against a slow reference, and on maps whose seams are planted."""

import math

import numpy as np
import pytest

from cache.knn import knn_edges
from magnet_core.seams import seam_ratio, seam_ratios, touching_pairs

# N rows, G genes


def lattice(columns: int, rows: int, *, pitch_um: float = 8.0, turned_deg: float = 0.3) -> np.ndarray:
    """Centres (N, 2) of a slightly turned lattice, in rows."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    cos, sin = math.cos(math.radians(turned_deg)), math.sin(math.radians(turned_deg))
    turn = np.array([[cos, sin], [-sin, cos]])
    centres_um: np.ndarray = np.stack([x.ravel(), y.ravel()], axis=1) * pitch_um @ turn
    return centres_um


def tiles(columns: int, rows: int, side: int) -> np.ndarray:
    """Tile (N,) of each row of a lattice, `side` × `side` rows in each."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    owner: np.ndarray = (y // side * 1000 + x // side).ravel()
    return owner


def pairs_of(centres_um: np.ndarray, *, pitch_um: float = 8.0) -> np.ndarray:
    return touching_pairs(centres_um, knn_edges(centres_um, 8), pitch_um=pitch_um)


def literal_ratio(values: np.ndarray, centres_um: np.ndarray, owner: np.ndarray, *, pitch_um: float) -> list[float]:
    """Every pair of rows, one after the other."""
    ratios = []
    for gene in values.T:
        jumps: dict[bool, list[float]] = {True: [], False: []}
        for i in range(len(centres_um)):
            for j in range(i):
                if math.dist(centres_um[i], centres_um[j]) < 1.2 * pitch_um:
                    jumps[bool(owner[i] != owner[j])].append(abs(gene[i] - gene[j]))
        ratios.append(float(np.mean(jumps[True]) / np.mean(jumps[False])))
    return ratios


def smooth_map(centres_um: np.ndarray) -> np.ndarray:
    """Two genes (N, 2) that vary over some 200 µm."""
    x, y = centres_um.T / 200.0
    return np.stack([np.sin(x + 0.3) + np.cos(1.3 * y), np.sin(0.7 * x - 1.1 * y)], axis=1)


def test_touching_pairs_are_the_four_neighbours_of_a_turned_lattice() -> None:
    centres_um = lattice(4, 3, turned_deg=1.0)
    right = [(row * 4 + column, row * 4 + column + 1) for row in range(3) for column in range(3)]
    down = [(row, row + 4) for row in range(8)]
    assert pairs_of(centres_um).tolist() == [list(pair) for pair in sorted(right + down)]


def test_rows_that_do_not_touch_make_no_pair() -> None:
    centres_um = lattice(4, 3)[[0, 2, 5, 7, 8, 10]]  # a chessboard: corners meet, sides do not
    assert pairs_of(centres_um).shape == (0, 2)


def test_the_ratio_is_that_of_the_literal_reference() -> None:
    rng = np.random.default_rng(0)
    centres_um, owner = lattice(12, 9), tiles(12, 9, 4)
    kept = np.sort(rng.permutation(len(centres_um))[:90])  # tissue with holes
    values = rng.normal(size=(90, 3))
    ratio = seam_ratio(values, pairs_of(centres_um[kept]), owner[kept])
    np.testing.assert_allclose(ratio, literal_ratio(values, centres_um[kept], owner[kept], pitch_um=8.0))


def test_a_smooth_map_shows_no_tiles_and_an_offset_of_each_tile_shows() -> None:
    centres_um, owner = lattice(84, 84), tiles(84, 84, 7)
    pairs, values = pairs_of(centres_um), smooth_map(lattice(84, 84))
    np.testing.assert_allclose(seam_ratio(values, pairs, owner), 1.0, atol=0.02)
    offsets = np.random.default_rng(1).normal(size=owner.max() + 1)[owner]
    planted = seam_ratio(values + 0.05 * offsets[:, None] * [1, 0], pairs, owner)
    assert planted[0] > 1.5
    np.testing.assert_allclose(planted[1], 1.0, atol=0.02)


def test_the_ratio_does_not_depend_on_the_unit_or_the_order_of_rows() -> None:
    rng = np.random.default_rng(2)
    centres_um, owner = lattice(16, 16), tiles(16, 16, 4)
    values = rng.normal(size=(256, 2))
    plain = seam_ratio(values, pairs_of(centres_um), owner)
    order = rng.permutation(256)
    again = seam_ratio(3 * values[order] + 5, pairs_of(centres_um[order]), owner[order])
    np.testing.assert_allclose(again, plain)


def test_each_tiling_answers_for_its_own_seams_alone() -> None:
    centres_um = lattice(96, 96)
    owners = {"spot": tiles(96, 96, 6), "region": tiles(96, 96, 16)}  # every third border of regions is one of spots
    pairs, values = pairs_of(centres_um), smooth_map(centres_um)
    offsets = 0.2 * np.random.default_rng(3).normal(size=owners["region"].max() + 1)[owners["region"]]
    ratios = seam_ratios(values + offsets[:, None], pairs, owners)
    assert (ratios["region"] > 3).all()
    np.testing.assert_allclose(ratios["spot"], 1.0, atol=0.03)
    of_all_pairs = seam_ratio(values + offsets[:, None], pairs, owners["spot"])
    assert (of_all_pairs < 0.95).all()  # seams of regions, most of which lie inside spots, would hide those of spots


def test_where_there_is_nothing_to_divide() -> None:
    centres_um, owner = lattice(8, 8), tiles(8, 8, 4)
    pairs, values = pairs_of(centres_um), smooth_map(centres_um)
    assert np.isnan(seam_ratio(values, pairs, np.zeros(64, int))).all()  # one tile: no border
    assert np.isnan(seam_ratio(values, pairs, np.arange(64))).all()  # a tile a row: no inside
    assert np.isnan(seam_ratio(values, np.empty((0, 2), int), owner)).all()
    flat = np.stack([np.ones(64), owner], axis=1)
    assert seam_ratio(flat, pairs, owner).tolist() == [1.0, math.inf]


def test_many_pairs_are_added_up_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    pairs, owner, values = pairs_of(lattice(20, 20)), tiles(20, 20, 5), rng.normal(size=(400, 2)).astype(np.float32)
    whole = seam_ratio(values, pairs, owner)
    monkeypatch.setattr("magnet_core.seams.BLOCK_PAIRS", 7)
    np.testing.assert_allclose(seam_ratio(values, pairs, owner), whole, rtol=1e-6)
