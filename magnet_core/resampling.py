"""95 % intervals of the metrics: a bootstrap over patients and, within their slides, over neighbourhoods of bins.

In: prediction and truth of each slide, and the block of neighbouring bins that each bin belongs to. Out: `BlockSums`, a
few sums a block, from which the metrics of any resample follow without the bins; and the metrics of many resamples.

Neighbouring bins share tissue and errors, and bins drawn one by one give intervals that are too narrow: blocks are
drawn. Two systems that are resampled with one seed meet the same draws, and their difference is a paired one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnet_core.errors import MagnetError
from magnet_core.files import replacing
from magnet_core.metrics import CONSTANT_TOLERANCE, chunks, nan_mean, row_correlations
from magnet_core.seeding import named_rng

# N bins of one slide, B blocks, G genes, R resamples, S slides

BLOCKS = 64  # of a slide, or one for every few bins of a small one
BINS_OF_BLOCK = 4


@dataclass(frozen=True)
class BlockSums:
    """Sums over the bins of each block of one slide.

    moments    (6, B, G): measured entries, Σp', Σt', Σp'², Σt'², Σp't' of prediction and truth less their slide means
    errors     (3, B): measured entries, Σ squared errors, Σ absolute errors, over all genes
    per_bin    (2, B): bins whose correlation over genes is defined, and the sum of these correlations
    means      (2, G) of prediction and truth over the slide
    largest    (2, G) largest absolute prediction and truth, which tell rounding from variation
    """

    moments: np.ndarray
    errors: np.ndarray
    per_bin: np.ndarray
    means: np.ndarray
    largest: np.ndarray

    def save(self, path: Path) -> None:
        """Write an npz file, whole or not at all."""
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "BlockSums":
        """Read what `save` wrote."""
        with path.open("rb") as file, np.load(file) as parts:
            return cls(**parts)


def cut_into_blocks(order: np.ndarray) -> np.ndarray:
    """Cut `order`, the bins (N,) along a space-filling curve, into equal blocks; return the block of each bin (N,)."""
    blocks = min(BLOCKS, max(1, len(order) // BINS_OF_BLOCK))
    block_of = np.empty(len(order), dtype=np.int64)
    for index, part in enumerate(np.array_split(order, blocks)):
        block_of[part] = index
    return block_of


def block_sums(prediction: np.ndarray, truth: np.ndarray, block_of: np.ndarray) -> BlockSums:
    """Sum prediction and truth (N, G) of one slide by block, without NaN of the truth; `block_of` (N,) is from 0."""
    mask = ~np.isnan(truth)
    counts = np.maximum(mask.sum(axis=0), 1)
    means = np.stack([np.where(mask, each, 0).sum(axis=0, dtype=np.float64) / counts for each in (prediction, truth)])
    num_blocks, num_genes = int(block_of.max()) + 1, truth.shape[1]
    moments = np.zeros((6, num_blocks, num_genes))
    errors, per_bin = np.zeros((3, num_blocks)), np.zeros((2, num_blocks))
    largest = np.zeros((2, num_genes))
    start = 0
    for predicted, true, measured in chunks(prediction, truth):
        blocks = block_of[start : start + len(true)]
        start += len(true)
        p, t = (np.where(measured, each - mean, 0.0) for each, mean in zip((predicted, true), means, strict=True))
        for sums, each in zip(moments, (measured, p, t, p * p, t * t, p * t), strict=True):
            np.add.at(sums, blocks, each)
        difference = predicted - true
        for sums, each in zip(errors, (measured, difference**2, np.abs(difference)), strict=True):
            np.add.at(sums, blocks, each.sum(axis=1))
        correlation = row_correlations(predicted, true, measured=measured)
        np.add.at(per_bin[0], blocks, ~np.isnan(correlation))
        np.add.at(per_bin[1], blocks, np.nan_to_num(correlation))
        np.maximum(largest, [np.abs(predicted).max(axis=0), np.abs(true).max(axis=0)], out=largest)
    return BlockSums(moments, errors, per_bin, means, largest)


def pool(slides: Sequence[BlockSums]) -> BlockSums:
    """Pool the bins of several slides about common means: a correlation then includes differences between slides."""
    counts = np.stack([slide.moments[0].sum(axis=0) for slide in slides])[:, None]  # (S, 1, G)
    means = (counts * np.stack([slide.means for slide in slides])).sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    moments = []
    for slide in slides:
        count, p, t, pp, tt, pt = slide.moments
        by_p, by_t = slide.means - means  # what is added to each value
        shifted_p, shifted_t = p + count * by_p, t + count * by_t
        squares_p, squares_t = pp + 2 * by_p * p + count * by_p**2, tt + 2 * by_t * t + count * by_t**2
        products = pt + by_p * t + by_t * p + count * by_p * by_t
        moments.append(np.stack([count, shifted_p, shifted_t, squares_p, squares_t, products]))
    return BlockSums(
        np.concatenate(moments, axis=1),
        np.concatenate([slide.errors for slide in slides], axis=1),
        np.concatenate([slide.per_bin for slide in slides], axis=1),
        means,
        np.max([slide.largest for slide in slides], axis=0),
    )


def metrics_of(sums: BlockSums, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics (R,) of one slide, its blocks counting `weights` (R, B) times; as `evaluate` has them where all are 1."""
    return {name: metric.of(sums, weights) for name, metric in METRICS.items()}


def mean_squared_error(sums: BlockSums, weights: np.ndarray) -> np.ndarray:
    """Mean over all measured entries (R,)."""
    return _divide(weights @ sums.errors[1], weights @ sums.errors[0])


def mean_absolute_error(sums: BlockSums, weights: np.ndarray) -> np.ndarray:
    """Mean over all measured entries (R,)."""
    return _divide(weights @ sums.errors[2], weights @ sums.errors[0])


def correlation_per_bin(sums: BlockSums, weights: np.ndarray) -> np.ndarray:
    """Mean over bins (R,) of the correlation over genes."""
    return _divide(weights @ sums.per_bin[1], weights @ sums.per_bin[0])


def correlation_per_gene(sums: BlockSums, weights: np.ndarray) -> np.ndarray:
    """Mean over genes (R,) of the correlation over the bins of the slide."""
    return nan_mean(gene_correlations(sums, weights).T)


@dataclass(frozen=True)
class Metric:
    """One column of every table: its heading, and how it follows from a slide's sums and weights (R, B): (R,)."""

    title: str
    of: Callable[[BlockSums, np.ndarray], np.ndarray]
    lower_is_better: bool = False


METRICS: dict[str, Metric] = {
    "mse": Metric("MSE", mean_squared_error, lower_is_better=True),
    "mae": Metric("MAE", mean_absolute_error, lower_is_better=True),
    "pcc_bin": Metric("PCC per bin", correlation_per_bin),
    "pcc_gene": Metric("PCC per gene", correlation_per_gene),
}


def metric_titles() -> list[str]:
    """Headings of the metrics, in the order of tables."""
    return [metric.title for metric in METRICS.values()]


def gene_correlations(sums: BlockSums, weights: np.ndarray) -> np.ndarray:
    """Correlation (R, G) over the bins of a slide, NaN where the truth is constant and 0 where the prediction is."""
    count, p, t, pp, tt, pt = (weights @ part for part in sums.moments)
    count = np.maximum(count, 1)
    p, t = p / count, t / count
    variance = np.maximum(np.stack([pp / count - p**2, tt / count - t**2]), 0)
    predicted_varies, truth_varies = np.sqrt(variance) > CONSTANT_TOLERANCE * sums.largest[:, None]
    correlation = np.zeros_like(count)
    both = predicted_varies & truth_varies
    np.divide(pt / count - p * t, np.sqrt(variance[0] * variance[1]), out=correlation, where=both)
    return np.where(truth_varies, np.clip(correlation, -1, 1), np.nan)


def resample(
    slides: Mapping[str, BlockSums],
    weights: Mapping[str, float],
    *,
    patients: Mapping[str, str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, np.ndarray]:
    """Metrics (R,) of as many resamples: patients are drawn with replacement, and blocks within each of their slides.

    `weights` are what each slide counts in the mean; `patients` name each slide's, its own where nothing is said. A
    slide that is drawn twice counts twice, with one draw of its blocks. The draws depend on the seed and on names, so
    that systems on the same slides share them.
    """
    if not slides:
        raise MagnetError("bootstrap", expected="a slide", found="none", remedy="predict a slide that has counts")
    names = sorted(slides)
    patient_of = [(patients or {}).get(name, name) for name in names]
    drawable = sorted(set(patient_of))
    shares = np.full(len(drawable), 1 / len(drawable))
    times_drawn = named_rng(seed, "bootstrap").multinomial(len(drawable), shares, size=resamples)
    drawn = times_drawn[:, [drawable.index(patient) for patient in patient_of]]  # (R, S)
    per_slide: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    for name in names:
        blocks = slides[name].errors.shape[1]
        times = named_rng(seed, "bootstrap", name).multinomial(
            blocks, np.full(blocks, 1 / blocks), size=resamples
        )  # (R, B)
        for metric, values in metrics_of(slides[name], times.astype(np.float64)).items():
            per_slide[metric].append(values)
    importance = drawn * np.array([weights[name] for name in names])
    return {metric: _weighted_mean(np.stack(values, axis=1), importance) for metric, values in per_slide.items()}


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled values (R,)."""
    low, high = np.nanpercentile(values, [2.5, 97.5]) if np.isfinite(values).any() else (np.nan, np.nan)
    return float(low), float(high)


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over slides of values (R, S) without those that are NaN."""
    is_number = ~np.isnan(values)
    return _divide((np.where(is_number, values, 0) * weights).sum(axis=1), (is_number * weights).sum(axis=1))


def _divide(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)
