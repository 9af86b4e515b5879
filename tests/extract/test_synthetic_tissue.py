"""The synthetic truth: cells, domains, genes, counts. What is random is compared with what it must average to."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from extract.synthetic.cells import Cells, keep_apart, outline, place_cells
from extract.synthetic.counts import negative_binomial
from extract.synthetic.fields import ranks, refine, smooth_noise
from extract.synthetic.genes import CLASSES, draw_genes
from extract.synthetic.grid import BinGrid
from extract.synthetic.histology import CELL_NAMES, CELL_TYPES, DOMAIN_NAMES, DOMAINS, FAMILIES, GLASS
from extract.synthetic.sprites import Sprite, draw_bank, stamp
from extract.synthetic.stains import draw_stain
from extract.synthetic.tissue import TissueMap, draw_tissue

SIDE_UM = 2000.0


@pytest.fixture(scope="module")
def slide() -> tuple[TissueMap, Cells, np.ndarray]:
    """A map, its cells, and the domain of each cell."""
    tissue = draw_tissue(SIDE_UM, np.random.default_rng(1))
    cells, _ = place_cells(tissue, SIDE_UM, np.random.default_rng(2))
    return tissue, cells, tissue.at(tissue.domain, cells.xy_um)


def test_tissue_fills_the_middle_and_every_domain_is_there(slide: tuple[TissueMap, Cells, np.ndarray]) -> None:
    tissue, _, _ = slide
    edge = np.concatenate([tissue.domain[0], tissue.domain[-1], tissue.domain[:, 0], tissue.domain[:, -1]])
    assert (edge == GLASS).all()
    assert 0.5 < (tissue.domain != GLASS).mean() < 0.9
    assert set(np.unique(tissue.domain)) == {GLASS, *range(len(DOMAINS))}


def test_boundary_distance_agrees_with_a_search_of_all_pixels() -> None:
    tissue = draw_tissue(400.0, np.random.default_rng(0))
    rows, cols = np.nonzero(tissue.domain != GLASS)
    family = np.array([FAMILIES.index(recipe.family) for recipe in DOMAINS])[tissue.domain[rows, cols]]
    near = (tissue.boundary_um[rows, cols] < 40) & (np.abs(rows - 50) < 30) & (np.abs(cols - 50) < 30)
    for index in np.flatnonzero(near)[::97]:
        other = family != family[index]
        nearest = np.hypot(rows[other] - rows[index], cols[other] - cols[index]).min() * 4
        assert tissue.boundary_um[rows[index], cols[index]] <= nearest + 1e-3


def test_domains_of_a_pair_hold_the_same_cells(slide: tuple[TissueMap, Cells, np.ndarray]) -> None:
    _, cells, domain = slide
    for index, recipe in enumerate(DOMAINS):
        share = np.bincount(cells.kind[domain == index], minlength=len(CELL_NAMES)) / (domain == index).sum()
        wanted = np.array([recipe.shares.get(name, 0) for name in CELL_NAMES])
        assert sum(recipe.shares.values()) == pytest.approx(1)
        np.testing.assert_allclose(share, wanted, atol=0.05)


def test_domains_of_a_pair_differ_in_arrangement(slide: tuple[TissueMap, Cells, np.ndarray]) -> None:
    """Tumour cells keep company in nests, not when scattered; fibroblasts lie parallel, or not when woven."""
    _, cells, domain = slide

    def neighbours(name: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        here = domain == DOMAIN_NAMES.index(name)
        is_kind = cells.kind[here] == CELL_NAMES.index(kind)
        nearest = cKDTree(cells.xy_um[here]).query(cells.xy_um[here][is_kind], k=13)[1][:, 1:]
        return here, nearest

    def company(name: str) -> float:
        here, nearest = neighbours(name, "tumour")
        return float((cells.kind[here][nearest] == CELL_NAMES.index("tumour")).mean())

    def order(name: str) -> float:
        here, nearest = neighbours(name, "fibroblast")
        fibre = cells.kind[here] == CELL_NAMES.index("fibroblast")
        turned = np.exp(2j * cells.angle_rad[here])
        own = turned[fibre][:, None]
        both = fibre[nearest]
        return float(np.real(turned[nearest] * own.conj())[both].mean())

    assert company("tumour_nests") > company("tumour_scattered") + 0.2
    assert order("stroma_parallel") > order("stroma_woven") + 0.3


def test_cells_keep_their_distance_and_stay_out_of_lumina() -> None:
    tissue = draw_tissue(800.0, np.random.default_rng(3))
    cells, spaces = place_cells(tissue, 800.0, np.random.default_rng(4))
    away, owner = cKDTree(spaces.xy_um).query(cells.xy_um)
    toward = cells.xy_um - spaces.xy_um[owner]
    wall = outline(spaces.radius_um[owner], spaces.lobes_rad[owner], np.arctan2(toward[:, 1], toward[:, 0]))
    assert (away > wall).all()
    filling = cells.xy_um[cells.kind == CELL_NAMES.index("lymphocyte")]
    assert cKDTree(filling).query(filling, k=2)[0][:, 1].min() >= 8.4 - 1e-6


def test_keep_apart_agrees_with_the_loop_over_all() -> None:
    rng = np.random.default_rng(0)
    xy, radius = rng.uniform(0, 100, (300, 2)), rng.uniform(1, 6, 300)
    kept: list[int] = []
    for index in range(300):
        if all(np.hypot(*(xy[index] - xy[k])) >= radius[index] + radius[k] for k in kept):
            kept.append(index)
    np.testing.assert_array_equal(keep_apart(xy, radius), kept)
    assert len(keep_apart(np.zeros((0, 2)), np.zeros(0))) == 0


def test_the_negative_binomial_has_its_mean_and_variance() -> None:
    rng = np.random.default_rng(0)
    rates = np.tile([[0.0, 0.02, 0.5, 3.0, 40.0]], (40_000, 1)).astype(np.float32)
    counts = negative_binomial(rates, 0.3, rng).toarray()
    mean = rates[0].astype(np.float64)
    variance = mean + 0.3 * mean**2
    assert (counts[:, 0] == 0).all()
    assert (np.abs(counts.mean(axis=0) - mean)[1:] < 4.5 * np.sqrt(variance / len(rates))[1:]).all()
    np.testing.assert_allclose(counts.var(axis=0)[1:], variance[1:], rtol=0.12)
    zeros = (1 + 0.3 * mean) ** (-1 / 0.3)
    np.testing.assert_allclose((counts == 0).mean(axis=0), zeros, atol=0.01)
    assert negative_binomial(np.zeros((2, 3), np.float32), 0.3, rng).nnz == 0


def test_rates_agree_with_the_formula_gene_by_gene() -> None:
    rng = np.random.default_rng(0)
    genes = draw_genes(60, rng)
    content = rng.uniform(0, 2, (5, len(CELL_TYPES) + 1)).astype(np.float32)
    domain, boundary_um = np.array([0, 3, 5, GLASS, 1]), np.array([0.0, 10, 45, 200, 5], np.float32)
    rates = genes.rates(content, domain, boundary_um)
    for row in range(5):
        for gene in range(60):
            cells = sum(content[row, kind] * genes.profile[kind, gene] for kind in range(len(CELL_TYPES) + 1))
            near = np.exp(genes.boundary[gene] * np.exp(-boundary_um[row] / 45.0))
            assert rates[row, gene] == pytest.approx(cells * genes.domain[domain[row], gene] * near, rel=1e-4)


def test_gene_classes_do_what_they_say_and_means_have_a_long_tail() -> None:
    genes = draw_genes(1000, np.random.default_rng(0))
    marker, home = genes.classes == "marker", genes.classes == "domain"
    names = np.array(CELL_NAMES)
    assert (names[genes.profile[:-1, marker].argmax(axis=0)] == genes.target[marker]).all()
    assert (np.array(DOMAIN_NAMES)[genes.domain[:-1, home].argmax(axis=0)] == genes.target[home]).all()
    assert (genes.domain[:, ~home] == 1).all()
    assert ((genes.boundary != 0) == (genes.classes == "boundary")).all()
    mean = genes.profile[-1]
    assert mean.mean() > 1.7 * np.median(mean)
    top = np.argsort(-mean)[:250]
    assert set(genes.classes[top]) == set(CLASSES)


def test_a_grid_finds_the_bin_of_every_centre_and_none_outside() -> None:
    grid = BinGrid(8, 20, (100.0, 90.0), np.deg2rad(1.5))
    np.testing.assert_array_equal(grid.index_of(grid.centres_um()), np.arange(400))
    assert (grid.index_of(np.array([[0.0, 0.0], [100.0, 300.0]])) == -1).all()
    rows, cols = grid.rows_cols()
    centre = grid.centres_um()[(rows == 2) & (cols == 19)][0]
    assert centre[0] > 100  # the last column lies right
    assert centre[1] < 90  # an early row lies above
    assert grid.barcodes()[2 * 20 + 19] == "s_008um_00002_00019-1"
    np.testing.assert_array_equal(np.bincount(grid.parent()), np.full(100, 4))


def test_a_stamp_at_the_rim_paints_what_fits() -> None:
    sprite = Sprite(np.arange(18, dtype=np.float32).reshape(2, 3, 3), np.full((3, 3), 0.5, np.float32), (1, 1))
    whole = np.ones((2, 9, 9), np.float32)
    stamp(whole, sprite, 2, 4)
    part = np.ones((2, 5, 5), np.float32)  # the window of `whole` from row 2, column 4 on
    stamp(part, sprite, 0, 0)
    np.testing.assert_array_equal(part, whole[:, 2:7, 4:9])
    untouched = np.ones((2, 5, 5), np.float32)
    stamp(untouched, sprite, -9, 40)
    assert (untouched == 1).all()


def test_cell_types_look_different() -> None:
    """Nuclei differ in stained area and in how dark they are by more than their spread within a type."""
    bank = draw_bank(0.5, np.random.default_rng(0))
    looks = {}
    for cell, variants in zip(CELL_TYPES, bank.nuclei, strict=True):
        stain = [variant[0].stain[0] for variant in variants]
        looks[cell.name] = np.log([[sprite.sum(), sprite.max()] for sprite in stain]).mean(axis=0)
    assert looks["lymphocyte"][1] > looks["tumour"][1] + 0.2
    assert looks["tumour"][0] > looks["endothelium"][0] + 0.3
    assert len({tuple(np.round(look, 1)) for look in looks.values()}) >= 6


def test_stain_is_white_on_glass_dark_blue_in_nuclei_and_shifts_with_the_patient() -> None:
    amounts = np.zeros((2, 1, 3), np.float32)
    amounts[:, 0, 1], amounts[:, 0, 2] = (2.0, 0.2), (0.0, 0.6)
    pictures = [draw_stain(np.random.default_rng(seed)).to_rgb(amounts)[0].astype(int) for seed in range(5)]
    for glass, nucleus, fibre in pictures:
        assert glass.min() > 225
        assert nucleus[2] > nucleus[0]
        assert nucleus.max() < 150
        assert fibre[0] > fibre[2] > fibre[1]
    assert np.std(pictures, axis=0).max() > 5


def test_refine_agrees_with_bilinear_interpolation_by_hand() -> None:
    field = np.arange(20, dtype=np.float32).reshape(4, 5) ** 2
    rows, cols = np.array([-1.0, 0.25, 1.5, 9.0]), np.array([0.5, 3.75])
    fine = refine(field, rows, cols)
    for i, row in enumerate(np.clip(rows, 0, 3)):
        for j, col in enumerate(np.clip(cols, 0, 4)):
            top, left = min(int(row), 2), min(int(col), 3)
            down, right = row - top, col - left
            upper = field[top, left] * (1 - right) + field[top, left + 1] * right
            lower = field[top + 1, left] * (1 - right) + field[top + 1, left + 1] * right
            assert fine[i, j] == pytest.approx(upper * (1 - down) + lower * down, rel=1e-5)


def test_noise_is_standard_and_ranks_are_even() -> None:
    noise = smooth_noise((80, 90), 3.0, np.random.default_rng(0))
    assert noise.mean() == pytest.approx(0, abs=1e-5)
    assert noise.std() == pytest.approx(1, abs=1e-5)
    even = ranks(noise)
    np.testing.assert_array_equal(np.sort(even, axis=None), np.arange(7200, dtype=np.float32) / 7200)
    assert even.argmax() == noise.argmax()
