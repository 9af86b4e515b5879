"""Metrics against scipy, one row and one gene at a time, and the cases in which a correlation is not defined."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import pearsonr

from magnet_core import metrics
from magnet_core.errors import MagnetError
from magnet_core.metrics import Metrics, combine, evaluate

# N bins, G genes
N, G = 40, 7


def make_slide(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.gamma(1.0, size=(N, G))
    return truth + rng.normal(scale=0.5, size=(N, G)), truth


def assert_equal(one: Metrics, other: Metrics) -> None:
    for name, value in dataclasses.asdict(one).items():
        np.testing.assert_allclose(value, getattr(other, name), rtol=1e-10, err_msg=name)


def test_equals_scipy_row_by_row_and_gene_by_gene() -> None:
    prediction, truth = make_slide()
    found = evaluate(prediction, truth)
    assert found.mse == pytest.approx(np.mean((prediction - truth) ** 2))
    assert found.mae == pytest.approx(np.mean(np.abs(prediction - truth)))
    assert found.pcc_bin == pytest.approx(np.mean([pearsonr(prediction[i], truth[i]).statistic for i in range(N)]))
    per_gene = [pearsonr(prediction[:, g], truth[:, g]).statistic for g in range(G)]
    np.testing.assert_allclose(found.gene_pcc, per_gene)
    assert found.pcc_gene == pytest.approx(np.mean(per_gene))
    np.testing.assert_allclose(found.gene_mse, np.mean((prediction - truth) ** 2, axis=0))
    np.testing.assert_allclose(found.gene_mae, np.mean(np.abs(prediction - truth), axis=0))


@pytest.mark.parametrize("chunk_entries", [1, 3 * G, N * G - 1])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, chunk_entries: int) -> None:
    prediction, truth = make_slide()
    truth[3, 2] = np.nan
    whole = evaluate(prediction, truth)
    monkeypatch.setattr(metrics, "CHUNK_ENTRIES", chunk_entries)
    assert_equal(evaluate(prediction, truth), whole)


def test_missing_truth_is_left_out() -> None:
    prediction, truth = make_slide()
    truth[:, 1] = np.nan  # a gene that this slide lacks
    truth[4] = np.nan  # a bin without counts
    truth[5, 3] = np.nan
    found = evaluate(prediction, truth)
    known = ~np.isnan(truth)
    assert found.mse == pytest.approx(np.mean((prediction - truth)[known] ** 2))
    assert found.mae == pytest.approx(np.mean(np.abs(prediction - truth)[known]))
    rows = [pearsonr(prediction[i, known[i]], truth[i, known[i]]).statistic for i in range(N) if i != 4]
    assert found.pcc_bin == pytest.approx(np.mean(rows))
    assert np.isnan([found.gene_pcc[1], found.gene_mse[1], found.gene_mae[1]]).all()
    per_gene = [pearsonr(prediction[known[:, g], g], truth[known[:, g], g]).statistic for g in range(G) if g != 1]
    np.testing.assert_allclose(np.delete(found.gene_pcc, 1), per_gene)
    assert found.pcc_gene == pytest.approx(np.mean(per_gene))


def test_prediction_may_be_missing_where_the_truth_is() -> None:
    prediction, truth = make_slide()
    truth[:, 1] = prediction[:, 1] = np.nan
    assert np.isfinite(evaluate(prediction, truth).mse)


def test_gene_mean_predictor_scores_high_per_bin_and_zero_per_gene() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(np.linspace(0, 3, G), 0.5, size=(N, G)).astype(np.float32)
    prediction = np.broadcast_to(truth.mean(axis=0), truth.shape)
    found = evaluate(prediction, truth)
    assert found.pcc_bin > 0.8
    assert found.pcc_gene == 0.0
    assert (found.gene_pcc == 0.0).all()


def test_constant_prediction_counts_zero_despite_rounding() -> None:
    _, truth = make_slide()
    rng = np.random.default_rng(2)
    prediction = np.full((N, G), 0.1, dtype=np.float32)
    noise = rng.integers(-1, 2, size=(N, G)) * np.spacing(np.float32(0.1))  # the last bit, as a GPU leaves it
    found = evaluate(prediction + noise.astype(np.float32), truth)
    assert (found.gene_pcc == 0.0).all()
    assert found.pcc_bin == 0.0


def test_constant_truth_is_not_defined_and_left_out() -> None:
    prediction, truth = make_slide()
    truth[:, 2] = 0.1
    truth[7] = 0.0
    truth[7, 2] = 0.1  # the gene is constant, the row is not
    truth[8] = 0.1
    found = evaluate(prediction, truth)
    assert np.isnan(found.gene_pcc[2])
    assert found.gene_mse[2] == pytest.approx(np.mean((prediction[:, 2] - 0.1) ** 2))
    rows = [pearsonr(prediction[i], truth[i]).statistic for i in range(N) if i != 8]
    assert found.pcc_bin == pytest.approx(np.mean(rows))
    assert found.pcc_gene == pytest.approx(np.nanmean(found.gene_pcc))


def test_both_constant_is_not_defined() -> None:
    found = evaluate(np.ones((N, G)), np.zeros((N, G)))
    assert np.isnan([found.pcc_bin, found.pcc_gene]).all()
    assert found.mse == 1.0


def test_one_bin_has_a_correlation_over_genes_only() -> None:
    prediction, truth = make_slide()
    found = evaluate(prediction[:1], truth[:1])
    assert found.pcc_bin == pytest.approx(pearsonr(prediction[0], truth[0]).statistic)
    assert np.isnan(found.pcc_gene)


def test_small_variation_on_a_large_offset_is_still_measured() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(N, G))
    found = evaluate(1e4 + truth, truth)
    np.testing.assert_allclose(found.gene_pcc, 1.0)


def test_combine_gives_every_slide_the_same_weight() -> None:
    slides = [evaluate(*make_slide(seed)) for seed in range(3)]
    prediction, truth = make_slide(4)
    truth[:, 1] = np.nan
    slides.append(evaluate(prediction[:9], truth[:9]))
    found = combine(slides)
    assert found.pcc_bin == pytest.approx(np.mean([s.pcc_bin for s in slides]))
    assert found.gene_pcc[0] == pytest.approx(np.mean([s.gene_pcc[0] for s in slides]))
    assert found.gene_pcc[1] == pytest.approx(np.mean([s.gene_pcc[1] for s in slides[:3]]))
    assert found.pcc_gene == pytest.approx(np.mean([s.pcc_gene for s in slides]))


def test_combine_of_one_slide_is_that_slide() -> None:
    prediction, truth = make_slide()
    truth[:, 1] = np.nan
    slide = evaluate(prediction, truth)
    assert_equal(combine([slide]), slide)


def test_what_is_defined_on_no_slide_stays_undefined() -> None:
    undefined = evaluate(np.ones((N, G)), np.zeros((N, G)))
    assert np.isnan(combine([undefined, undefined]).pcc_gene)


def test_unusable_input_is_refused() -> None:
    prediction, truth = make_slide()
    with pytest.raises(MagnetError, match="one shape"):
        evaluate(prediction[:5], truth)
    with pytest.raises(MagnetError, match="not empty"):
        evaluate(prediction[:0], truth[:0])
    prediction[9, 0] = np.inf
    with pytest.raises(MagnetError, match="1 NaN or infinite"):
        evaluate(prediction, truth)
    with pytest.raises(MagnetError, match="at least one slide"):
        combine([])
    with pytest.raises(MagnetError, match="panels of 3, 7 genes"):
        combine([evaluate(truth, truth), evaluate(truth[:, :3], truth[:, :3])])
