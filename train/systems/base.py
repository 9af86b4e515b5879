"""What every compared system does: learn from the training side of a fold, then predict slides it has not seen.

In: a `Training`, which holds nothing of test slides. Out: normalised expression (N, P) of every fine row of a slide.
"""

from typing import Protocol

import numpy as np

from train.data.fold_sides import Training
from train.data.slide import Slide

# N fine rows of a slide, n rows of all training slides, P panel genes


class System(Protocol):
    """One system. `fit` is called once; `predict` never sees a label."""

    def fit(self, training: Training) -> None:
        """Learn from the training side of a fold."""

    def predict(self, slide: Slide) -> np.ndarray:
        """Return normalised expression (N, P) float32 of every fine row."""
