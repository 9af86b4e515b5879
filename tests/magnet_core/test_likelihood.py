"""Likelihoods against scipy's, their gradients, and that fitting them to drawn counts finds the rates of the draw."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import sparse, stats
from torch import Tensor

from magnet_core.errors import MagnetError
from magnet_core.likelihood import (
    DISPERSIONS,
    estimate_dispersion,
    log_mean_counts,
    negative_binomial_loss,
    poisson_loss,
)

# N nodes, G genes
N, G, SCALE = 6, 4, 1e4
Loss = Callable[[Tensor, Tensor], Tensor]

LIBRARY = torch.tensor([20.0, 55.0, 300.0, 7.0, 90.0, 140.0], dtype=torch.float64)
DISPERSION = torch.tensor([0.01, 0.3, 1.0, 4.0], dtype=torch.float64)


def some_predictions() -> Tensor:
    return torch.linspace(-1.0, 8.0, N * G, dtype=torch.float64).reshape(N, G).roll(1, dims=0)


def some_counts() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.poisson(torch.full((N, G), 2.0, dtype=torch.float64), generator=generator)


def poisson(prediction: Tensor, counts: Tensor) -> Tensor:
    return poisson_loss(prediction, counts, library=LIBRARY.to(prediction.dtype), scale=SCALE)


def negative_binomial(prediction: Tensor, counts: Tensor) -> Tensor:
    library, dispersion = LIBRARY.to(prediction.dtype), DISPERSION.to(prediction.dtype)
    return negative_binomial_loss(prediction, counts, library=library, dispersion=dispersion, scale=SCALE)


@pytest.fixture(params=[poisson, negative_binomial])
def loss(request: pytest.FixtureRequest) -> Loss:
    chosen: Loss = request.param
    return chosen


def log_probability(loss: Loss, counts: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Log-likelihood of scipy, whose negative binomial counts the failures before n successes of probability p."""
    size = 1.0 / DISPERSION.numpy()
    law = stats.poisson(mean) if loss is poisson else stats.nbinom(size, size / (size + mean))
    log_probabilities: np.ndarray = law.logpmf(counts)
    return log_probabilities


def test_expected_counts_undo_the_normalisation() -> None:
    """The expression of a count, as it is normalised, predicts this count; below p = 0.5 the mean stays above it."""
    expression = torch.tensor([[0.5, 1.0, 3.0, 8.0], [0.0, -0.5, -1.0, -3.0]], dtype=torch.float64)
    mean = log_mean_counts(expression, torch.tensor([50.0, 50.0]), scale=SCALE).exp()
    naive = 50.0 / SCALE * torch.expm1(expression)
    torch.testing.assert_close(mean[0], naive[0], rtol=6e-3, atol=0.0)
    torch.testing.assert_close(mean[0, 1:], naive[0, 1:], rtol=1e-4, atol=0.0)
    softplus = [math.log1p(math.exp(8 * p)) / 8 for p in (0.0, -0.5, -1.0, -3.0)]
    torch.testing.assert_close(mean[1], torch.tensor([50.0 / SCALE * math.expm1(s) for s in softplus]).double())


def test_log_means_are_smooth_and_rise_everywhere() -> None:
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-4)):
        prediction = torch.linspace(-6, 12, 4001, dtype=dtype).reshape(-1, 1).requires_grad_()
        log_mean = log_mean_counts(prediction, torch.full((4001,), SCALE, dtype=dtype), scale=SCALE)
        (slope,) = torch.autograd.grad(log_mean.sum(), prediction)
        assert (slope > 0.99).all()  # 1 for a large p, where the mean is exp(p)
        assert (slope < 8.0 + 1e-3).all()
        assert (slope.diff(dim=0) < tolerance).all()  # it falls all the way: no kink where the branches meet


def test_differences_are_those_of_the_likelihood(loss: Loss) -> None:
    """Constants are dropped, so that differences are compared, between predictions far apart."""
    counts = some_counts()
    first, second = some_predictions(), some_predictions().flip(0, 1)
    expected = []
    for prediction in (first, second):
        mean = log_mean_counts(prediction, LIBRARY, scale=SCALE).exp().numpy()
        expected.append(-log_probability(loss, counts.numpy(), mean).mean())
    assert abs(expected[0] - expected[1]) > 0.1
    found = loss(first, counts) - loss(second, counts)
    assert found.item() == pytest.approx(expected[0] - expected[1], rel=1e-8)


def test_the_poisson_is_the_limit_of_a_small_dispersion() -> None:
    prediction, counts = some_predictions().clamp(max=5.0), some_counts()
    small = torch.zeros(G, dtype=torch.float64)  # taken as the smallest of DISPERSIONS
    nearly = negative_binomial_loss(prediction, counts, library=LIBRARY, dispersion=small, scale=SCALE)
    assert nearly.item() == pytest.approx(poisson(prediction, counts).item(), rel=1e-3)


def test_gradients_are_those_of_the_formula(loss: Loss) -> None:
    counts = some_counts()
    counts[1, 2] = torch.nan
    prediction = torch.cat([some_predictions()[:3], -some_predictions()[3:]]).requires_grad_()  # down to p = -8
    assert torch.autograd.gradcheck(lambda p: loss(p, counts), (prediction,), eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_extreme_predictions_have_finite_losses_and_gradients(loss: Loss, dtype: torch.dtype) -> None:
    extremes = torch.tensor([-6e4, -200.0, -20.0, -2.0, 0.0, 2.0, 30.0, 90.0, 6e4], dtype=dtype)
    for extreme in extremes:
        prediction = extreme.expand(N, G).clone().requires_grad_()
        found = loss(prediction, some_counts().to(torch.float32))
        assert found.dtype in (torch.float32, torch.float64)
        (gradient,) = torch.autograd.grad(found, prediction)
        assert found.isfinite()
        assert gradient.isfinite().all()


def test_a_counted_gene_pulls_its_prediction_up_from_any_depth(loss: Loss) -> None:
    counts = torch.ones(N, G)
    for depth in (0.0, -1.0, -10.0, -100.0):
        prediction = torch.full((N, G), depth, requires_grad=True)
        (gradient,) = torch.autograd.grad(loss(prediction, counts) * N * G, prediction)
        assert (gradient < -4.0).all()


def test_what_is_not_measured_is_left_out(loss: Loss) -> None:
    prediction, counts = some_predictions().requires_grad_(), some_counts()
    counts[2] = torch.nan
    counts[:, 1] = torch.nan
    found = loss(prediction, counts)
    (gradient,) = torch.autograd.grad(found, prediction)
    genes, rows = torch.tensor([0, 2, 3]), torch.tensor([0, 1, 3, 4, 5])
    kept = torch.zeros(N, G, dtype=torch.bool)
    kept[rows.unsqueeze(1), genes] = True
    assert torch.equal(gradient != 0, kept)
    log_mean = log_mean_counts(prediction.detach(), LIBRARY, scale=SCALE)
    if loss is poisson:
        assert found.item() == pytest.approx((log_mean.exp() - counts * log_mean)[kept].mean().item())


@pytest.mark.parametrize("empty", [0.0, torch.nan])
def test_rows_without_a_library_are_left_out(empty: float) -> None:
    library = LIBRARY.clone()
    library[3] = empty
    prediction, counts = some_predictions().requires_grad_(), some_counts()
    for found in (
        poisson_loss(prediction, counts, library=library, scale=SCALE),
        negative_binomial_loss(prediction, counts, library=library, dispersion=DISPERSION, scale=SCALE),
    ):
        (gradient,) = torch.autograd.grad(found, prediction)
        assert found.isfinite()
        assert gradient.isfinite().all()
        assert torch.equal(gradient.abs().sum(dim=1) > 0, library > 0)


def test_nothing_measured_is_no_loss(loss: Loss) -> None:
    prediction = some_predictions().requires_grad_()
    found = loss(prediction, torch.full((N, G), torch.nan, dtype=torch.float64))
    assert found.item() == 0.0
    assert not torch.autograd.grad(found, prediction)[0].any()


def draw(rates: np.ndarray, library: np.ndarray, dispersion: np.ndarray | None, *, seed: int) -> np.ndarray:
    """Counts (N, G) at library · rate, as Poisson or, with a dispersion (G,), as its mixture over Gamma."""
    rng = np.random.default_rng(seed)
    mean: np.ndarray = library[:, None] * rates
    if dispersion is not None:
        mean = mean * rng.gamma(1.0 / dispersion, dispersion, size=mean.shape)
    counts: np.ndarray = rng.poisson(mean).astype(np.float64)
    return counts


@pytest.mark.parametrize("dispersion", [None, np.array([0.1, 0.5, 1.0, 2.0, 0.3])], ids=["poisson", "binomial"])
def test_fitting_drawn_counts_finds_the_rates(dispersion: np.ndarray | None) -> None:
    rates = np.array([0.001, 0.01, 0.05, 0.2, 3e-5])  # the last is p = 0.26, where the softplus bends
    library = np.random.default_rng(0).integers(20, 400, size=20_000).astype(np.float64)
    counts = torch.from_numpy(draw(rates, library, dispersion, seed=1))
    libraries = torch.from_numpy(library)
    prediction = torch.zeros(1, len(rates), dtype=torch.float64, requires_grad=True)

    def fitted() -> Tensor:
        everywhere = prediction.expand(len(library), -1)
        if dispersion is None:
            return poisson_loss(everywhere, counts, library=libraries, scale=SCALE)
        known = torch.from_numpy(dispersion)
        return negative_binomial_loss(everywhere, counts, library=libraries, dispersion=known, scale=SCALE)

    optimiser = torch.optim.LBFGS([prediction], lr=0.5, max_iter=200, tolerance_change=1e-14, tolerance_grad=1e-10)

    def closure() -> float:
        optimiser.zero_grad()
        loss = fitted()
        loss.backward()
        return loss.item()

    optimiser.step(closure)
    found = (log_mean_counts(prediction.detach(), torch.ones(1), scale=SCALE).exp())[0].numpy()
    if dispersion is None:  # the most likely rate is known: all counts over all libraries
        np.testing.assert_allclose(found, counts.sum(dim=0).numpy() / library.sum(), rtol=1e-4)
    variance = library[:, None] * rates
    variance = variance + (0.0 if dispersion is None else dispersion) * variance**2
    standard_error = np.sqrt(variance.sum(axis=0)) / library.sum()
    assert (np.abs(found - rates) < 4 * standard_error).all()


def test_moments_find_the_dispersion_they_were_drawn_from() -> None:
    true = np.array([0.1, 0.5, 1.0, 3.0, 0.0])
    rates = np.array([0.02, 0.01, 0.05, 0.01, 0.03])
    slides, libraries = [], []
    for seed, share in enumerate((1.0, 0.5)):  # the second slide has other rates, which is not dispersion
        library = np.random.default_rng(seed).integers(50, 300, size=30_000).astype(np.float64)
        drawn = draw(rates * share, library, np.maximum(true, 1e-9), seed=10 + seed)
        slides.append(sparse.csr_matrix(drawn.astype(np.int32)))
        libraries.append(library)
    found = estimate_dispersion(slides, libraries)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:4], true[:4], rtol=0.1)
    assert DISPERSIONS[0] <= found[4] < 0.02


def test_moments_equal_the_sums_written_out_and_stay_within_bounds() -> None:
    counts = np.array([[3, 0, 1, 40], [0, 0, 1, 0], [9, 0, 1, 0]])
    library = np.array([10.0, 5.0, 12.0])
    expected = []
    for gene in range(4):
        rate = counts[:, gene].sum() / 27.0
        excess = sum((counts[i, gene] - library[i] * rate) ** 2 - counts[i, gene] for i in range(3))
        squared = sum((library[i] * rate) ** 2 for i in range(3))
        expected.append(excess / squared if squared else 0.0)
    found = estimate_dispersion([sparse.csr_matrix(counts)], [library])
    np.testing.assert_allclose(found, np.clip(expected, *DISPERSIONS), rtol=1e-6)
    assert found[1] == found[2] == np.float32(DISPERSIONS[0])  # never counted; counted more evenly than at random
    many = estimate_dispersion([sparse.csr_matrix(np.eye(50, 1) * 1000)], [np.ones(50)])
    assert many[0] == np.float32(DISPERSIONS[1])


def test_what_does_not_fit_together_is_refused() -> None:
    prediction, counts = some_predictions(), some_counts()
    with pytest.raises(MagnetError, match=r"loss, library: expected shape \(6,\).*found \(5,\)"):
        poisson_loss(prediction, counts, library=LIBRARY[:5], scale=SCALE)
    with pytest.raises(MagnetError, match=r"loss, counts: expected shape \(6, 4\).*found \(6, 3\)"):
        poisson_loss(prediction, counts[:, :3], library=LIBRARY, scale=SCALE)
    with pytest.raises(MagnetError, match=r"loss, dispersion: expected shape \(4,\)"):
        negative_binomial_loss(prediction, counts, library=LIBRARY, dispersion=DISPERSION[:2], scale=SCALE)
    table = sparse.csr_matrix(np.eye(3))
    with pytest.raises(MagnetError, match="counts of one slide or more"):
        estimate_dispersion([], [])
    with pytest.raises(MagnetError, match="counts of 2 rows, as many as libraries, and 3 genes, found 3 rows"):
        estimate_dispersion([table], [np.ones(2)])
