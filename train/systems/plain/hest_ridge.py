"""The linear probe of the HEST benchmark (Jaume et al. 2024): z-scores, PCA-256 and ridge on the patch's own feature.

In: pooled features of the fine rows alone, no context. The penalty is the benchmark's, 100 / (components · genes), with
no look at the data. Its regression has no intercept; the training mean is added here, which no correlation sees.
"""

import numpy as np
from sklearn.linear_model import Ridge

from train.data.slide import Slide
from train.data.training_side import TrainingSide
from train.systems.plain.ridge import Standardiser, principal_axes

# N fine rows of a slide, n training rows, D features, C components, P panel genes

COMPONENTS = 256
PENALTY = 100.0


class HestRidge:
    """PCA-256 and ridge of a fixed penalty on raw pooled features."""

    def fit(self, training: TrainingSide) -> None:
        """Fit z-scores, components and weights on the training rows."""
        inputs, labels = np.concatenate([_pooled(slide) for slide in training.slides]), training.all_fine()
        self._scale = Standardiser(inputs)
        scaled = self._scale(inputs)
        axes = principal_axes(scaled, COMPONENTS)  # (D, C)
        components = scaled @ axes
        self._mean = labels.mean(axis=0)
        penalty = PENALTY / (components.shape[1] * labels.shape[1])
        ridge = Ridge(penalty, fit_intercept=False, copy_X=False, solver="cholesky")
        ridge.fit(components.astype(np.float64), labels - self._mean)  # of float32 a gram matrix is singular too soon
        self._weights = axes @ ridge.coef_.T

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P)."""
        values: np.ndarray = (self._scale(_pooled(slide)) @ self._weights + self._mean).astype(np.float32)
        return values


def _pooled(slide: Slide) -> np.ndarray:
    return slide.fine.features("pooled", np.arange(len(slide.fine))).numpy().astype(np.float32)
