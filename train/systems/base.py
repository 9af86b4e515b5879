"""What every compared system does: learn from the training side of a fold, then predict slides it has not seen.

In: a `TrainingSide`, which holds nothing of test slides. Out: normalised expression (N, P) of a slide's fine rows.
"""

from typing import Protocol

import numpy as np

from train.data.slide import Slide
from train.data.training_side import TrainingSide
from train.learning.progress import Progress

# N fine rows of a slide, n rows of all training slides, P panel genes


class System(Protocol):
    """One system. `fit` is called once; `predict` never sees a label."""

    def fit(self, training: TrainingSide) -> Progress | None:
        """Learn from the training side of a fold, and say how it went where it went in epochs."""

    def predict(self, slide: Slide) -> np.ndarray:
        """Return normalised expression (N, P) float32 of every fine row."""
