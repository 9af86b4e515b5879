"""The noise ceiling against truths that can be written down, or drawn again at the same rates."""

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from magnet_core import ceiling
from magnet_core.ceiling import noise_ceiling
from magnet_core.errors import MagnetError
from magnet_core.expression import expression
from magnet_core.settings.normalise import NormaliseConfig

# N rows, P panel genes
N = 8000
LINEAR = NormaliseConfig(library="none", log=False)


def draw_rates(*, shape: float = 1.0, depth: float = 2.0, num_genes: int = 8, seed: int = 0) -> np.ndarray:
    """Gamma rates (N, P) of mean `depth` and variance depth² / shape."""
    return np.random.default_rng(seed).gamma(shape, depth / shape, (N, num_genes))


def ceiling_of(
    counts: np.ndarray, config: NormaliseConfig, *, others: int | np.ndarray = 0, dispersion: float | np.ndarray = 0.0
) -> np.ndarray:
    rng = np.random.default_rng(1)
    return noise_ceiling(sparse.csr_matrix(counts), counts.sum(axis=1) + others, config, rng, dispersion=dispersion)


@pytest.mark.parametrize("depth", [0.3, 2.0, 20.0])
def test_of_plain_poisson_counts_it_is_the_textbooks(depth: float) -> None:
    counts = np.random.default_rng(2).poisson(draw_rates(depth=depth))
    known = np.sqrt(depth**2 / (depth**2 + depth))  # Var λ ÷ (Var λ + E λ)
    assert ceiling_of(counts, LINEAR).mean() == pytest.approx(known, abs=0.01)


def test_known_dispersion_is_noise_and_unknown_dispersion_is_signal() -> None:
    depth, dispersion = 2.0, 0.5
    rng = np.random.default_rng(3)
    expressed = draw_rates(shape=1.0, depth=depth) * rng.gamma(1 / dispersion, dispersion, (N, 8))
    counts = rng.poisson(expressed)
    total = depth**2 + depth + dispersion * 2 * depth**2  # Var λ + E λ + φ E λ²
    with_dispersion = ceiling_of(counts, LINEAR, dispersion=dispersion).mean()
    assert with_dispersion == pytest.approx(np.sqrt(depth**2 / total), abs=0.02)
    assert ceiling_of(counts, LINEAR).mean() == pytest.approx(np.sqrt((total - depth) / total), abs=0.01)
    of_gene = np.where(np.arange(8) < 4, dispersion, 0.0)
    by_gene = ceiling_of(counts, LINEAR, dispersion=of_gene)
    assert by_gene[:4].mean() == pytest.approx(with_dispersion, abs=0.02)
    assert by_gene[4:].mean() == pytest.approx(np.sqrt((total - depth) / total), abs=0.02)


@pytest.mark.parametrize(
    "config",
    [NormaliseConfig(library="panel"), NormaliseConfig(library="all"), NormaliseConfig(library="none")],
    ids=lambda each: each.library,
)
@pytest.mark.parametrize("depth", [0.3, 2.0])
def test_of_logged_labels_it_is_what_a_second_draw_shows(config: NormaliseConfig, depth: float) -> None:
    """Two draws at the same rates correlate by the square of the ceiling."""
    rates = draw_rates(depth=depth, num_genes=40)
    rng = np.random.default_rng(4)
    draws = [(rng.poisson(rates), rng.poisson(50, (N, 1))) for _ in range(2)]
    one, two = (
        expression(sparse.csr_matrix(np.hstack([panel, others])), np.arange(40), config) for panel, others in draws
    )
    known = np.sqrt([np.corrcoef(one[:, gene], two[:, gene])[0, 1] for gene in range(40)])
    found = ceiling_of(draws[0][0], config, others=draws[0][1][:, 0] if config.library == "all" else 0)
    assert found.mean() == pytest.approx(known.mean(), abs=0.02)
    np.testing.assert_allclose(found, known, atol=0.1)  # two draws of one gene are as uncertain


def test_a_gene_that_does_not_vary_has_none_and_one_of_noise_alone_has_next_to_none() -> None:
    rng = np.random.default_rng(5)
    counts = np.stack([np.zeros(N), np.full(N, 3), rng.poisson(1.0, N), rng.poisson(rng.gamma(1, 1, N))], axis=1)
    found = ceiling_of(counts.astype(np.int64), LINEAR)
    np.testing.assert_array_equal(np.isnan(found), [True, True, False, False])
    assert found[2] < 0.25  # of N rows, noise alone correlates by 1 / √N, of which this is the root
    assert found[3] == pytest.approx(np.sqrt(0.5), abs=0.05)


def test_a_slide_without_rows_has_none() -> None:
    assert np.isnan(ceiling_of(np.zeros((0, 3), dtype=np.int64), NormaliseConfig())).all()


def test_one_generator_gives_one_ceiling_and_blocks_change_only_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.random.default_rng(6).poisson(draw_rates())
    whole = ceiling_of(counts, NormaliseConfig())
    np.testing.assert_array_equal(ceiling_of(counts, NormaliseConfig()), whole)
    monkeypatch.setattr(ceiling, "BLOCK_ROWS", 999)
    np.testing.assert_allclose(ceiling_of(counts, NormaliseConfig()), whole, atol=0.03)


@pytest.mark.parametrize(
    ("counts", "libraries", "options", "message"),
    [
        ([[0.5, 1]], [2], {}, "raw counts"),
        ([[-1, 1]], [2], {}, "raw counts"),
        ([[1, 1]], [2, 2], {}, "a library for each of 1 rows"),
        ([[1, 1]], [1], {}, "1 rows with a library below their sum"),
        ([[1, 1]], [np.nan], {}, "1 rows with a library below their sum"),
        ([[1, 1]], [2], {"dispersion": -1.0}, "dispersion >= 0"),
        ([[1, 1]], [2], {"dispersion": np.array([0.1, np.nan])}, "dispersion >= 0"),
        ([[1, 1]], [2], {"dispersion": np.zeros(3)}, "one or one a gene"),
        ([[1, 1]], [2], {"thinnings": 0}, "thinnings >= 1"),
    ],
)
def test_bad_input_is_refused(
    counts: list[list[float]], libraries: list[float], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MagnetError, match=message):
        noise_ceiling(
            sparse.csr_matrix(counts), np.array(libraries), NormaliseConfig(), np.random.default_rng(0), **options
        )
