"""The score that chooses an epoch: PCC per gene on slides that the training side holds out, never on test slides."""

from collections.abc import Callable

import numpy as np

from magnet_core.metrics import combine, evaluate
from train.data.slide import Slide
from train.data.training_side import TrainingSide
from train.learning.loop import Validate

# N fine rows of a slide, P panel genes


def validator(side: TrainingSide, predict: Callable[[Slide], np.ndarray]) -> Validate | None:
    """Return the mean PCC per gene of predictions (N, P) over whole slides; None where no slide is held out."""
    if not side.held_out:
        return None

    def validate() -> float:
        return combine([evaluate(predict(slide), side.fine(slide)) for slide in side.held_out]).pcc_gene

    return validate
