"""Over-dispersion on a lattice of bins whose genes vary smoothly, so that touching bins are all but alike.

Counts are Poisson, or Poisson of rates that gamma noise of a known shape multiplies, bin by bin and gene by gene: φ is
1 / shape.
"""

import math

import numpy as np
import pytest
from scipy import ndimage, sparse

from magnet_core.overdispersion import touching_dispersion

# N bins, P panel genes
SIDE, P = 50, 12
N = SIDE * SIDE
DEPTHS = np.geomspace(0.5, 6, P)


def touching() -> np.ndarray:
    at = np.arange(N).reshape(SIDE, SIDE)
    across, down = (at[:, :-1], at[:, 1:]), (at[:-1], at[1:])
    return np.concatenate([np.stack([one.ravel(), other.ravel()], axis=1) for one, other in (across, down)])


def smooth_rates(rng: np.random.Generator) -> np.ndarray:
    """Rates (N, P) about `DEPTHS`, the log of each with a sd of 0.6 over hills of some ten bins."""
    fields = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE, P)), (5, 5, 0), mode="wrap")
    rates: np.ndarray = DEPTHS * np.exp(0.6 * (fields / fields.std(axis=(0, 1))).reshape(N, P))
    return rates


def noise(shape: float, rng: np.random.Generator) -> float | np.ndarray:
    return 1.0 if math.isinf(shape) else rng.gamma(shape, 1 / shape, (N, P))


def dispersion_of(counts: np.ndarray, *, divided: bool = True) -> np.ndarray:
    return touching_dispersion(sparse.csr_matrix(counts), counts.sum(axis=1) if divided else None, touching())


@pytest.mark.parametrize("divided", [True, False], ids=["library", "raw"])
@pytest.mark.parametrize("shape", [math.inf, 10.0, 4.0])
def test_of_bins_that_are_alike_it_is_that_of_the_noise(shape: float, divided: bool) -> None:
    rng = np.random.default_rng(0)
    rates = smooth_rates(rng)
    found = dispersion_of(rng.poisson(rates * noise(shape, rng)), divided=divided)
    assert np.all(found >= 0)
    assert found.mean() == pytest.approx(1 / shape, abs=0.06)


def test_what_truly_differs_between_touching_bins_is_in_it() -> None:
    """Rates of bins of their own are not told from noise: φ is an estimate from above."""
    rng = np.random.default_rng(1)
    rough = np.where(rng.random((N, P)) < 0.5, 0.5, 1.5) * DEPTHS
    assert dispersion_of(rng.poisson(rough)).mean() > 0.15


def test_libraries_are_brought_to_one_size() -> None:
    """Bins of many counts beside bins of few: thrice the library is no over-dispersion."""
    rng = np.random.default_rng(2)
    row, column = np.divmod(np.arange(N), SIDE)
    counts = rng.poisson(DEPTHS * np.where((row + column) % 2, 1.0, 3.0)[:, np.newaxis])
    assert dispersion_of(counts).mean() < 0.05
    assert dispersion_of(counts, divided=False).mean() > 0.5


def test_it_is_what_a_hand_counts() -> None:
    counts = np.array([[30, 0], [10, 1], [20, 1], [20, 0]])
    found = touching_dispersion(sparse.csr_matrix(counts), None, np.array([[0, 1], [1, 2]]))
    alone = (30 * 29 + 10 * 9) / 2 + (10 * 9 + 20 * 19) / 2
    np.testing.assert_allclose(found, [alone / (30 * 10 + 10 * 20) - 1, np.nan])


def test_where_too_few_bins_touch_nothing_is_said() -> None:
    counts = sparse.csr_matrix(np.random.default_rng(3).poisson(2.0, (N, P)))
    library = np.asarray(counts.sum(axis=1)).ravel()
    for pairs in (np.zeros((0, 2), dtype=np.int64), touching()[:3]):
        assert np.isnan(touching_dispersion(counts, library, pairs)).all()
