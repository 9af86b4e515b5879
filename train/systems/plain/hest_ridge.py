"""The linear probe of the HEST benchmark (Jaume et al. 2024): z-scores, PCA-256 and ridge on the patch's own feature.

In: pooled features of the fine rows alone, no context. The penalty is the benchmark's, 100 / (components · genes), with
no look at the data. Its regression has no intercept; the training mean is added here, which no correlation sees.

Everything follows from sums over the training rows, in double precision: components of z-scores are orthogonal, so that
ridge divides the covariance of each with the labels by its sum of squares and the penalty. The components are exact,
where scikit-learn's PCA, which the benchmark calls, approximates them for some shapes of the data.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.linalg import eigh

from train.data.slide import Slide
from train.data.training_side import TrainingSide

# N fine rows of a slide, n training rows, m rows of a chunk, D features, C components, P panel genes

COMPONENTS = 256
PENALTY = 100.0
CONSTANT = 1e-9  # a feature whose spread is below this part of its mean varies by rounding alone
_CHUNK = 4096


class HestRidge:
    """PCA-256 and ridge of a fixed penalty on raw pooled features."""

    def fit(self, training: TrainingSide) -> None:
        """Fit z-scores, components and weights on the training rows."""
        slides, labels = training.slides, training.all_fine()
        rows, width = len(labels), slides[0].fine.width
        self._mean, self._label_mean = np.zeros(width), labels.mean(axis=0, dtype=np.float64)
        for chunk in _chunks(slides):
            self._mean += chunk.sum(axis=0) / rows
        gram, with_labels, start = np.zeros((width, width)), np.zeros((width, labels.shape[1])), 0
        for chunk in _chunks(slides):
            centred = chunk - self._mean
            gram += centred.T @ centred
            with_labels += centred.T @ (labels[start : start + len(chunk)] - self._label_mean)
            start += len(chunk)
        spread = np.sqrt(np.diag(gram) / rows)
        varies = spread > CONSTANT * np.abs(self._mean)
        factor = np.divide(1.0, spread, out=np.zeros(width), where=varies)  # a feature that never varies becomes 0
        gram, with_labels = gram * np.outer(factor, factor), with_labels * factor[:, None]
        components = min(COMPONENTS, rows, width)
        squares, axes = eigh(gram, subset_by_index=[width - components, width - 1])  # (C,), (D, C)
        penalty = PENALTY / (components * labels.shape[1])
        weights = axes @ (axes.T @ with_labels / (np.maximum(squares, 0)[:, None] + penalty))
        self._weights = weights * factor[:, None]  # (D, P)

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P)."""
        parts = [(chunk - self._mean) @ self._weights + self._label_mean for chunk in _chunks([slide])]
        return np.concatenate(parts).astype(np.float32)


def _chunks(slides: Sequence[Slide]) -> Iterator[np.ndarray]:
    """Pooled features of the fine rows of all slides, in their order, some at a time: (m, D) float64."""
    for slide in slides:
        for start in range(0, len(slide.fine), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(slide.fine)))
            yield slide.fine.features("pooled", rows).numpy().astype(np.float64)
