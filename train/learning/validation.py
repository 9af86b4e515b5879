"""The score that chooses an epoch: PCC per gene on what the training side holds out, never on test slides."""

from collections.abc import Callable

import numpy as np

from magnet_core.metrics import combine, evaluate
from train.data.slide import Slide
from train.data.training_side import TrainingSide
from train.learning.loop import Validate

# N fine rows of a slide, P panel genes


def validator(side: TrainingSide, predict: Callable[[Slide], np.ndarray]) -> Validate | None:
    """Return the mean PCC per gene over the held-out rows of each slide; None where nothing is held out.

    Slides are predicted (N, P) whole, so that each row has its full neighbourhood.
    """
    if not side.held_out:
        return None
    judged = [(each, each.rows) for each in side.held_out]

    def validate() -> float:
        scores = [evaluate(predict(each.slide)[rows], side.fine(each.slide)[rows]) for each, rows in judged]
        return combine(scores).pcc_gene

    return validate
