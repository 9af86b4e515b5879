"""How well a slide was predicted: MSE, MAE and Pearson's correlation (paper, section 3, "Evaluation Metrics").

In: prediction and truth of one slide, (N, G) normalised log expression. Out: `Metrics` of that slide; `combine` takes
the mean over slides. Correlation comes in two kinds, and a predictor that knows only each gene's mean shows why: it
scores high per bin, over genes (the paper's PCC), and 0 per gene, over the bins of a slide (what biologists use).

Constant or not measured: a correlation with a constant truth is not defined, NaN, and left out of means; a constant
prediction of a truth that varies explains nothing and counts 0. NaN entries of the truth are left out of everything.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from magnet_core.errors import MagnetError

# N bins of one slide, B bins of a chunk, G genes

# Values whose sd is below this part of their largest are constant up to the rounding of float32 predictions.
CONSTANT_TOLERANCE = 1e-6
CHUNK_ENTRIES = 1 << 17  # 1 MiB of float64 at a time stays in a core's cache; 600k bins are never copied whole


@dataclass(frozen=True)
class Metrics:
    """Metrics of one slide, or their mean over slides.

    mse, mae   over all measured entries
    pcc_bin    mean over bins of the correlation over genes
    pcc_gene   mean over genes of the correlation over the bins of the slide
    gene_*     (G,) float64, per gene over the bins of the slide; NaN where not measured or not defined
    """

    mse: float
    mae: float
    pcc_bin: float
    pcc_gene: float
    gene_mse: np.ndarray
    gene_mae: np.ndarray
    gene_pcc: np.ndarray


def evaluate(prediction: np.ndarray, truth: np.ndarray) -> Metrics:
    """Compare `prediction` (N, G) with `truth` (N, G) of ONE slide; NaN in the truth is left out.

    Any real dtype, arrays or memory maps; sums run in float64, chunk by chunk, in two passes (means first). Raises
    `MagnetError` on unequal shapes and on a prediction that is not finite where the truth is known.
    """
    _check_shapes(prediction, truth)
    counts, means, largest = _first_pass(prediction, truth)
    num_genes = truth.shape[1]
    squares = np.zeros(num_genes)
    absolutes = np.zeros(num_genes)
    moments = np.zeros((3, num_genes))  # Σ p'², Σ t'², Σ p't' of the centred values
    bin_correlations = []
    for predicted, true, measured in chunks(prediction, truth):
        errors = predicted - true
        squares += np.square(errors).sum(axis=0)
        absolutes += np.abs(errors).sum(axis=0)
        moments += _centred_moments(predicted, true, measured=measured, means=means, axis=0)
        bin_correlations.append(row_correlations(predicted, true, measured=measured))
    gene_pcc = _correlation(moments, counts=counts, largest=largest)
    return Metrics(
        mse=_ratio(squares.sum(), counts.sum()),
        mae=_ratio(absolutes.sum(), counts.sum()),
        pcc_bin=float(nan_mean(np.concatenate(bin_correlations))),
        pcc_gene=float(nan_mean(gene_pcc)),
        gene_mse=_ratio_each(squares, counts),
        gene_mae=_ratio_each(absolutes, counts),
        gene_pcc=gene_pcc,
    )


def combine(slides: Sequence[Metrics]) -> Metrics:
    """Mean over slides, each slide weighing the same; what is not defined on a slide is left out of its mean."""
    if not slides:
        raise MagnetError(
            "metrics", expected="at least one slide", found="none", remedy="predict a slide that has counts"
        )
    panels = {len(slide.gene_pcc) for slide in slides}
    if len(panels) > 1:
        raise MagnetError(
            "metrics",
            expected="one gene panel for all slides",
            found=f"panels of {', '.join(map(str, sorted(panels)))} genes",
            remedy="evaluate all slides of a fold with the panel of its run",
        )

    def mean(name: str) -> np.ndarray:
        return nan_mean(np.stack([getattr(slide, name) for slide in slides]))

    return Metrics(
        mse=float(mean("mse")),
        mae=float(mean("mae")),
        pcc_bin=float(mean("pcc_bin")),
        pcc_gene=float(mean("pcc_gene")),
        gene_mse=mean("gene_mse"),
        gene_mae=mean("gene_mae"),
        gene_pcc=mean("gene_pcc"),
    )


def nan_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis without NaN; it is NaN, without a warning, where nothing is left."""
    is_number = ~np.isnan(values)
    return _ratio_each(np.where(is_number, values, 0.0).sum(axis=0), is_number.sum(axis=0))


def chunks(prediction: np.ndarray, truth: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield prediction and truth (B, G) in float64, both 0 where not measured, and the mask of what is measured."""
    rows = max(1, CHUNK_ENTRIES // max(1, truth.shape[1]))
    for start in range(0, len(truth), rows):
        true = np.asarray(truth[start : start + rows], dtype=np.float64)
        measured = ~np.isnan(true)
        predicted = np.where(measured, np.asarray(prediction[start : start + rows], dtype=np.float64), 0.0)
        if not np.isfinite(predicted).all():
            raise MagnetError(
                "prediction",
                expected="finite values",
                found=f"{int((~np.isfinite(predicted)).sum())} NaN or infinite after row {start}",
                remedy="the training has diverged: lower the learning rate",
            )
        yield predicted, np.where(measured, true, 0.0), measured


def _first_pass(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per gene: measured entries (G,), means (2, G) and largest absolute values (2, G) of prediction and truth."""
    num_genes = truth.shape[1]
    counts = np.zeros(num_genes, dtype=np.int64)
    sums = np.zeros((2, num_genes))
    largest = np.zeros((2, num_genes))
    for predicted, true, measured in chunks(prediction, truth):
        counts += measured.sum(axis=0)
        sums += np.stack([predicted.sum(axis=0), true.sum(axis=0)])
        np.maximum(largest, [np.abs(predicted).max(axis=0), np.abs(true).max(axis=0)], out=largest)
    return counts, sums / np.maximum(counts, 1), largest


def row_correlations(predicted: np.ndarray, true: np.ndarray, *, measured: np.ndarray) -> np.ndarray:
    """Correlation over genes of each row, (B,)."""
    counts = measured.sum(axis=1)
    means = np.stack([predicted.sum(axis=1), true.sum(axis=1)]) / np.maximum(counts, 1)
    largest = np.stack([np.abs(predicted).max(axis=1), np.abs(true).max(axis=1)])
    moments = _centred_moments(predicted, true, measured=measured, means=means[:, :, np.newaxis], axis=1)
    return _correlation(moments, counts=counts, largest=largest)


def _centred_moments(
    predicted: np.ndarray, true: np.ndarray, *, measured: np.ndarray, means: np.ndarray, axis: int
) -> np.ndarray:
    """Σ p'², Σ t'² and Σ p't' along `axis`, over measured entries, of values less their `means`."""
    p = np.where(measured, predicted - means[0], 0.0)
    t = np.where(measured, true - means[1], 0.0)
    return np.stack([np.square(p).sum(axis=axis), np.square(t).sum(axis=axis), (p * t).sum(axis=axis)])


def _correlation(moments: np.ndarray, *, counts: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Pearson's correlation from moments (3, n): NaN where the truth is constant, 0 where the prediction is."""
    deviations = np.sqrt(moments[:2] / np.maximum(counts, 1))
    prediction_varies, truth_varies = deviations > CONSTANT_TOLERANCE * largest
    scale = np.sqrt(moments[0]) * np.sqrt(moments[1])
    correlation = np.zeros_like(scale)
    np.divide(moments[2], scale, out=correlation, where=prediction_varies & truth_varies)
    return np.where(truth_varies, np.clip(correlation, -1.0, 1.0), np.nan)


def _ratio_each(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """`total / count`, NaN where the count is 0."""
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _ratio(total: float, count: int) -> float:
    return float(total / count) if count else float("nan")


def _check_shapes(prediction: np.ndarray, truth: np.ndarray) -> None:
    if prediction.shape != truth.shape or truth.ndim != 2 or 0 in truth.shape:
        raise MagnetError(
            "metrics",
            expected="prediction and truth of one shape (bins, genes), not empty",
            found=f"{prediction.shape} and {truth.shape}",
            remedy="predict the bins and the panel that are evaluated",
        )
