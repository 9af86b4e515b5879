"""The labels of a slide: the normalised expression of its levels."""

from collections.abc import Mapping

import numpy as np

from train.data.slide import Slide

# N rows of a level, P panel genes

LevelLabels = Mapping[str, np.ndarray | None]  # by level: (N, P) float32; None where it was not measured
SlideLabels = Mapping[str, LevelLabels]  # by slide id


def fine_labels(slide: Slide, labels: LevelLabels) -> np.ndarray:
    """Return the expression (N, P) of the fine level; a slide without it has been refused before."""
    fine = labels[slide.fine.name]
    assert fine is not None  # mean_counts refuses slides without counts
    return fine
