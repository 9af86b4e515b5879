"""The noise ceiling, which sees counts alone, against oracles that know what the counts of a slide were drawn from."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial import cKDTree

from extract.synthetic.cells import place_cells
from extract.synthetic.config import SynthConfig
from extract.synthetic.counts import negative_binomial, observe_bins
from extract.synthetic.genes import draw_genes
from extract.synthetic.grid import lay_grid
from extract.synthetic.tissue import draw_tissue
from magnet_core.ceiling import noise_ceiling
from magnet_core.expression import expression
from magnet_core.overdispersion import touching_dispersion
from magnet_core.seeding import named_rng
from magnet_core.settings.normalise import NormaliseConfig

CONFIG = SynthConfig(slides=1, seed=0, size_mm=1.0)
PANEL = 250
NORMALISE = NormaliseConfig()
DRAWS = 8  # for each of two mean labels
AGREEMENT = 0.02
SMALL_MM, FEW_DRAWS = 0.5, 3
CHANCE = 0.01  # of a mean over the genes of a small slide

# N bins in tissue, P panel genes

Draw = Callable[[], sparse.csr_matrix]


@dataclass(frozen=True)
class Bins:
    """True rates (N, P) of the panel, capture efficiency (N, 1) and pairs (E, 2) of touching bins in tissue."""

    rates: np.ndarray
    capture: np.ndarray
    pairs: np.ndarray


def observe(config: SynthConfig) -> Bins:
    """See the bins of a slide that is never painted."""
    tissue = draw_tissue(config.side_um, named_rng(config.seed, "tissue"))
    cells, _ = place_cells(tissue, config.side_um, named_rng(config.seed, "cells"))
    grid = lay_grid(config.side_um, config.rotation_deg, named_rng(config.seed, "grid"))
    genes = draw_genes(config.genes, named_rng(config.seed, "genes"))
    bins = observe_bins(
        tissue, cells, grid, genes,
        umi_per_bin=config.umi_per_bin, capture_sd=config.capture_sd, rng=named_rng(config.seed, "bins"),
    )  # fmt: skip
    rates = np.concatenate([rates[bins.in_tissue[block]] for block, rates in bins.rate_blocks(genes)])
    panel = np.argsort(-rates.mean(axis=0))[:PANEL]
    pairs = cKDTree(grid.centres_um()[bins.in_tissue]).query_pairs(1.2 * grid.bin_um, output_type="ndarray")
    return Bins(rates[:, panel], bins.capture[bins.in_tissue, np.newaxis], pairs)


@pytest.fixture(scope="module")
def rates_and_capture() -> tuple[np.ndarray, np.ndarray]:
    """True rates (N, P) of the panel and capture efficiency (N, 1)."""
    bins = observe(CONFIG)
    return bins.rates, bins.capture


def labels(counts: sparse.csr_matrix) -> np.ndarray:
    return expression(counts, np.arange(PANEL), NORMALISE).astype(np.float64)


def covariance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    of_each_gene: np.ndarray = ((one - one.mean(axis=0)) * (other - other.mean(axis=0))).mean(axis=0)
    return of_each_gene


def oracle_ceiling(counts: sparse.csr_matrix, draw: Draw, *, draws: int = DRAWS) -> np.ndarray:
    """Correlation (P,) of the labels of `counts` with the mean label of `draw`, as if that were of endless draws.

    What is left of noise in a mean of few draws would lower its correlation: its variance is therefore taken from the
    covariance of two such means.
    """
    measured = labels(counts)
    one, two = (np.mean([labels(draw()) for _ in range(draws)], axis=0) for _ in range(2))
    explained = covariance((one + two) / 2, measured)
    reached: np.ndarray = explained / np.sqrt(covariance(one, two) * covariance(measured, measured))
    return reached


def estimate(counts: sparse.csr_matrix, *, dispersion: float | np.ndarray = 0.0) -> np.ndarray:
    libraries = np.asarray(counts.sum(axis=1)).ravel()
    return noise_ceiling(counts, libraries, NORMALISE, np.random.default_rng(0), dispersion=dispersion)


def halves_ceiling(counts: sparse.csr_matrix, rng: np.random.Generator) -> np.ndarray:
    """The textbook's: sqrt(2r / (1 + r)) of two halves of the counts."""
    dense = counts.toarray()
    half = rng.binomial(dense, 0.5)
    one, two = (labels(sparse.csr_matrix(each)) for each in (half, dense - half))
    r = covariance(one, two) / np.sqrt(covariance(one, one) * covariance(two, two))
    reached: np.ndarray = np.sqrt(np.maximum(2 * r / (1 + r), 0))
    return reached


def test_with_known_dispersion_it_agrees_with_the_oracle_that_knows_the_rates(
    rates_and_capture: tuple[np.ndarray, np.ndarray],
) -> None:
    rates, capture = rates_and_capture
    rng = np.random.default_rng(1)
    counts = negative_binomial(rates * capture, CONFIG.dispersion, rng)
    oracle = oracle_ceiling(counts, lambda: negative_binomial(rates, CONFIG.dispersion, rng))
    difference = estimate(counts, dispersion=CONFIG.dispersion) - oracle
    assert abs(difference.mean()) < AGREEMENT
    assert difference.std() < 0.04
    assert (estimate(counts) - oracle).mean() > 2 * AGREEMENT  # without it, over-dispersion passes for signal


def test_it_agrees_with_the_oracle_that_knows_each_bins_expression_where_halves_do_not(
    rates_and_capture: tuple[np.ndarray, np.ndarray],
) -> None:
    rates, capture = rates_and_capture
    rng = np.random.default_rng(2)
    expressed = rates * capture * rng.gamma(1 / CONFIG.dispersion, CONFIG.dispersion, rates.shape)
    counts = sparse.csr_matrix(rng.poisson(expressed))
    oracle = oracle_ceiling(counts, lambda: sparse.csr_matrix(rng.poisson(expressed)))
    difference = estimate(counts) - oracle
    assert abs(difference.mean()) < AGREEMENT
    assert difference.std() < 0.04
    assert (halves_ceiling(counts, rng) - oracle).mean() > 2 * AGREEMENT


@dataclass(frozen=True)
class Found:
    """Means over genes of one slide: what can be reached, the bound, the estimate below it, and its median φ."""

    oracle: float
    ceiling: float
    low: float
    dispersion: float


def look(bins: Bins, shape: float, seed: int) -> Found:
    """Count once with gamma noise of a shape, independent between bins and genes; without any if it is infinite.

    The oracle knows the rates and the shape. All means are over the genes whose φ can be estimated.
    """
    rng = np.random.default_rng(seed)

    def draw(rates: np.ndarray) -> sparse.csr_matrix:
        noise = 1.0 if math.isinf(shape) else rng.gamma(shape, 1 / shape, rates.shape)
        return sparse.csr_matrix(rng.poisson(rates * noise))

    counts = draw(bins.rates * bins.capture)
    dispersion = touching_dispersion(counts, np.asarray(counts.sum(axis=1)).ravel(), bins.pairs)
    known = np.isfinite(dispersion)
    oracle = oracle_ceiling(counts, lambda: draw(bins.rates), draws=FEW_DRAWS)
    low = estimate(counts, dispersion=np.where(known, dispersion, 0.0))
    means = [float(each[known].mean()) for each in (oracle, estimate(counts), low)]
    return Found(means[0], means[1], means[2], float(np.median(dispersion[known])))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_ceiling_is_the_oracles_on_poisson_counts_and_an_upper_bound_on_over_dispersed_ones(seed: int) -> None:
    bins = observe(SynthConfig(slides=1, seed=seed, size_mm=SMALL_MM))
    poisson, ten, four = (look(bins, shape, seed) for shape in (math.inf, 10.0, 4.0))
    assert poisson.ceiling == pytest.approx(poisson.oracle, abs=AGREEMENT)
    assert 0.01 < ten.ceiling - ten.oracle < 0.06
    assert 0.04 < four.ceiling - four.oracle < 0.11
    for found in (poisson, ten, four):
        assert found.low < found.oracle + CHANCE
        assert found.low > found.oracle - 0.04
    assert poisson.dispersion < ten.dispersion < four.dispersion
