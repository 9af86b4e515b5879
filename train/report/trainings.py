"""How trainings went: loss by epoch, and PCC per gene on validation slides where there were some.

In: trainings by system and fold. Out: figures.
"""

from collections.abc import Sequence

from train.report.figures import Curve, Plot, curves
from train.report.folder import TrainingHistory


def training_plots(title: str, trainings: Sequence[tuple[str, str, TrainingHistory]]) -> list[Plot]:
    """Losses and validation scores of (system, fold, training)."""
    losses = [Curve(system, fold, each.losses, each.kept_epoch) for system, fold, each in trainings]
    scores = [Curve(system, fold, each.scores, each.kept_epoch) for system, fold, each in trainings if each.scores]
    plots = [curves(f"{title}: loss", losses, y_title="mean loss of an epoch")] if losses else []
    return plots + ([curves(f"{title}: validation", scores, y_title="PCC per gene")] if scores else [])
