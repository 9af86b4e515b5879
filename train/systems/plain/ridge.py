"""Two linear rivals: ridge on the colour of a patch, and PCA-256 + ridge on the cached features of all three levels.

Inputs are standardised and the penalty is chosen on training rows only: by leaving out one patient at a time, as rows
of one slide share stain and context, or, where there is one patient, by generalised cross-validation over rows. One
decomposition serves all penalties: scikit-learn's RidgeCV solves anew for each, and its criterion over rows is another.
"""

from collections.abc import Collection

import numpy as np
import torch

from train.data.slide import Slide
from train.data.three_levels import three_level_features
from train.data.training_side import TrainingSide

# n training rows, F inputs of a row, C components, P panel genes

PENALTIES = np.logspace(-2, 6, 17)
COMPONENTS = 256
_CHUNK = 512


class Ridge:
    """Linear regression with an L2 penalty, its strength chosen among `PENALTIES` by cross-validation."""

    def fit(self, inputs: np.ndarray, labels: np.ndarray, *, patients: np.ndarray | None = None) -> "Ridge":
        """Fit inputs (n, F) to labels (n, P); both are centred here, inputs are expected on one scale.

        `patients` (n,) names the patient of each row.
        """
        if patients is not None and len(np.unique(patients)) > 1:
            errors = np.zeros(len(PENALTIES))
            for patient in np.unique(patients):
                out = patients == patient
                fitted = _Decomposed(inputs[~out], labels[~out])
                errors += [np.square(labels[out] - fitted.predict(inputs[out], penalty)).sum() for penalty in PENALTIES]
            self._fitted = _Decomposed(inputs, labels)
        else:
            self._fitted = _Decomposed(inputs, labels)
            errors = np.array([self._fitted.generalised_error(penalty) for penalty in PENALTIES])
        self.penalty = float(PENALTIES[int(np.argmin(errors))])
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return (n, P)."""
        return self._fitted.predict(inputs, self.penalty).astype(np.float32)

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what is fitted as weights (F, P) and an offset (P,)."""
        return self._fitted.affine(self.penalty)


class _Decomposed:
    """Centred inputs (n, F) and labels (n, P), ready to be solved for any penalty."""

    def __init__(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self._input_mean, self._label_mean = inputs.mean(axis=0), labels.mean(axis=0)
        left, self._singular, self._right = np.linalg.svd(inputs - self._input_mean, full_matrices=False)
        self._projected = left.T @ (labels - self._label_mean)  # (r, P)
        self._total = np.square(labels - self._label_mean).sum()
        self._rows = len(inputs)

    def predict(self, inputs: np.ndarray, penalty: float) -> np.ndarray:
        weights, offset = self.affine(penalty)
        values: np.ndarray = inputs @ weights + offset
        return values

    def affine(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        weights = self._right.T @ ((self._singular / (self._singular**2 + penalty))[:, None] * self._projected)
        return weights, self._label_mean - self._input_mean @ weights

    def generalised_error(self, penalty: float) -> float:
        shrink = self._singular**2 / (self._singular**2 + penalty)
        residual = self._total - ((2 * shrink - shrink**2)[:, None] * self._projected**2).sum()
        return float(residual / (self._rows - shrink.sum()) ** 2)


class ColourRidge:
    """Ridge on six numbers a patch: mean and standard deviation of red, green and blue."""

    def fit(self, training: TrainingSide) -> None:
        """Fit on the pixels of the training slides."""
        inputs = np.concatenate([colour_statistics(slide) for slide in training.slides])
        self._scale = Standardiser(inputs)
        self._ridge = Ridge().fit(self._scale(inputs), training.all_fine(), patients=training.patients())

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P)."""
        return self._ridge.predict(self._scale(colour_statistics(slide)))


class FeatureRidge:
    """PCA to 256 components, then ridge, on the cached features of the fine row and pooled ones of its contexts.

    contexts  names of those that are read; None for all
    """

    def __init__(self, contexts: Collection[str] | None = None) -> None:
        self._contexts = contexts

    def fit(self, training: TrainingSide) -> None:
        """Fit on the features of the training slides; the components are drawn with a fixed seed."""
        inputs = np.concatenate([self._inputs(slide) for slide in training.slides])
        self._scale = Standardiser(inputs)
        scaled = self._scale(inputs)
        self._basis = principal_axes(scaled, COMPONENTS)
        self._ridge = Ridge().fit(scaled @ self._basis, training.all_fine(), patients=training.patients())

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P)."""
        return self._ridge.predict(self._scale(self._inputs(slide)) @ self._basis)

    def _inputs(self, slide: Slide) -> np.ndarray:
        return three_level_features(slide, contexts=self._contexts).numpy()

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what is fitted as weights (F, P) of `three_level_features` and an offset (P,), float32."""
        weights, offset = self._ridge.affine()
        of_inputs = self._scale.factor[:, None] * (self._basis @ weights)
        return of_inputs.astype(np.float32), (offset - self._scale.mean @ of_inputs).astype(np.float32)


def colour_statistics(slide: Slide) -> np.ndarray:
    """Mean and standard deviation of the three channels of each fine patch, (N, 6) float32 in 0 … 1."""
    rows = np.arange(len(slide.fine))
    parts = []
    for start in range(0, len(rows), _CHUNK):
        pixels = slide.fine.pixels(rows[start : start + _CHUNK]).astype(np.float32) / 255
        parts.append(np.concatenate([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))], axis=1))
    return np.concatenate(parts)


def principal_axes(inputs: np.ndarray, components: int) -> np.ndarray:
    """Axes (F, C) of largest variance of centred inputs (n, F), C at most `components`; drawn with a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, _, axes = torch.pca_lowrank(
            torch.from_numpy(inputs), q=min(components, *inputs.shape), center=False, niter=4
        )
    return axes.numpy()


class Standardiser:
    """Mean 0 and standard deviation 1 for each input, as seen in training; an input that never varies becomes 0."""

    def __init__(self, inputs: np.ndarray) -> None:
        self.mean = inputs.mean(axis=0)
        spread = inputs.std(axis=0)
        self.factor = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0).astype(np.float32)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Scale inputs (n, F)."""
        values: np.ndarray = (inputs - self.mean) * self.factor
        return values
