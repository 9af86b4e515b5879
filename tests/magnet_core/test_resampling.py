import numpy as np
import pytest

from magnet_core.metrics import evaluate
from magnet_core.resampling import (
    METRICS,
    block_sums,
    cut_into_blocks,
    gene_correlations,
    interval,
    metrics_of,
    pool,
    resample,
)


def slide(seed: int, bins: int = 90, genes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.gamma(2, 1, size=(bins, genes)).astype(np.float32)
    return (0.5 * truth + rng.normal(size=truth.shape) + 3).astype(np.float32), truth


def test_all_blocks_once_are_the_metrics_of_the_slide() -> None:
    prediction, truth = slide(0)
    truth[:, 3] = np.nan
    truth[5, 1] = np.nan
    truth[:, 4] = 2
    prediction[:, 5] = 1
    sums = block_sums(prediction, truth, cut_into_blocks(np.arange(len(truth))))
    whole = evaluate(prediction, truth)
    once = metrics_of(sums, np.ones((1, sums.errors.shape[1])))
    for name in METRICS:
        assert once[name][0] == pytest.approx(getattr(whole, name), abs=1e-12), name
    np.testing.assert_allclose(
        gene_correlations(sums, np.ones((1, sums.errors.shape[1])))[0], whole.gene_pcc, atol=1e-9
    )


def test_a_block_counted_twice_is_a_slide_with_its_bins_twice() -> None:
    prediction, truth = slide(1)
    block_of = np.arange(len(truth)) % 5
    weights = np.array([[2.0, 0, 1, 1, 3]])
    rows = np.concatenate([np.repeat(np.flatnonzero(block_of == block), int(n)) for block, n in enumerate(weights[0])])
    drawn, literal = (
        metrics_of(block_sums(prediction, truth, block_of), weights),
        evaluate(prediction[rows], truth[rows]),
    )
    for name in METRICS:
        assert drawn[name][0] == pytest.approx(getattr(literal, name), abs=1e-9), name


def test_intervals_hold_the_metric_and_narrow_with_more_slides() -> None:
    def widths(count: int) -> float:
        slides = {f"S{n}": block_sums(*slide(n), cut_into_blocks(np.arange(90))) for n in range(count)}
        low, high = interval(resample(slides, dict.fromkeys(slides, 1.0))["pcc_gene"])
        mean = np.mean([evaluate(*slide(n)).pcc_gene for n in range(count)])
        assert low < mean < high
        return high - low

    assert widths(12) < widths(3)


def test_two_systems_on_the_same_slides_share_their_draws() -> None:
    prediction, truth = slide(3)
    blocks = cut_into_blocks(np.arange(90))
    one, other = ({"S1": block_sums(values, truth, blocks)} for values in (prediction, prediction + 1))
    first, second = (resample(each, {"S1": 1.0}, seed=5)["pcc_gene"] for each in (one, other))
    np.testing.assert_allclose(first, second, atol=1e-6)  # a constant shift does not change a correlation


def test_slides_count_by_their_weights() -> None:
    sums = {f"S{n}": block_sums(*slide(n), np.zeros(90, dtype=np.int64)) for n in range(2)}
    values = resample(sums, {"S0": 1.0, "S1": 0.0}, resamples=50)["mse"]
    known = values[~np.isnan(values)]  # both draws may be the slide that does not count
    np.testing.assert_allclose(known, evaluate(*slide(0)).mse)


def test_blocks_are_equal_stretches_of_the_curve() -> None:
    order = np.random.default_rng(0).permutation(1000)
    blocks = cut_into_blocks(order)
    assert np.bincount(blocks).tolist() == [16] * 40 + [15] * 24
    assert (np.diff(blocks[order]) >= 0).all()


def test_pooled_slides_are_one_slide_of_all_their_bins() -> None:
    (first, first_truth), (second, second_truth) = slide(1), slide(2, bins=40)
    second, second_truth = second + 4, second_truth + 7
    first_truth[3, 2] = np.nan
    sums = pool(
        [
            block_sums(prediction, truth, cut_into_blocks(np.arange(len(truth))))
            for prediction, truth in ((first, first_truth), (second, second_truth))
        ]
    )
    literal = evaluate(np.concatenate([first, second]), np.concatenate([first_truth, second_truth]))
    found = metrics_of(sums, np.ones((1, sums.errors.shape[1])))
    for name in METRICS:
        assert found[name][0] == pytest.approx(getattr(literal, name), abs=1e-9), name


def test_slides_of_one_patient_are_drawn_together() -> None:
    slides = {f"S{n}": block_sums(*slide(n), np.zeros(90, dtype=np.int64)) for n in range(4)}
    patients = {"S0": "A", "S1": "A", "S2": "B", "S3": "B"}
    values = resample(slides, dict.fromkeys(slides, 1.0), patients=patients, resamples=200)["mse"]
    of_slide = [evaluate(*slide(n)).mse for n in range(4)]
    first, second = np.mean(of_slide[:2]), np.mean(of_slide[2:])
    expected = np.array([first, second, (first + second) / 2])
    assert np.abs(values[:, None] - expected).min(axis=1).max() < 1e-12
