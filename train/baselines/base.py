"""What every rival system does: learn from labelled training slides, then predict a slide it has not seen."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from train.dataset import Slide

# N fine rows of a slide, P panel genes


class Baseline(Protocol):
    """One system. `fit` is called once; `predict` never sees a label."""

    def fit(self, slides: Sequence[Slide], labels: Mapping[str, np.ndarray]) -> None:
        """Learn from slides and their fine labels (N, P) by slide id."""

    def predict(self, slide: Slide) -> np.ndarray:
        """Return normalised expression (N, P) of every fine row."""
