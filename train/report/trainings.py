"""How trainings went: loss by epoch, PCC per gene on what was held out, if anything was, and which epoch was kept.

In: trainings by system and fold. Out: figures, and a table.
"""

from collections.abc import Sequence

from train.report.figures import Curve, Plot, curves
from train.report.folder import TrainingHistory
from train.report.parts import Table, unrepeated

MOST_ROWS = 12  # of a table that is not folded


def training_plots(title: str, trainings: Sequence[tuple[str, str, TrainingHistory]]) -> list[Plot]:
    """Losses and validation scores of (system, fold, training)."""
    losses = [Curve(system, fold, each.losses, each.kept_epoch) for system, fold, each in trainings]
    scores = [Curve(system, fold, each.scores, each.kept_epoch) for system, fold, each in trainings if each.scores]
    plots = [curves(f"{title}: loss", losses, y_title="mean loss of an epoch")] if losses else []
    return plots + ([curves(f"{title}: validation", scores, y_title="PCC per gene")] if scores else [])


def kept_table(trainings: Sequence[tuple[str, str, str, TrainingHistory]]) -> Table:
    """Which epoch each (group, system, fold, training) kept, and why."""
    rows = [[group, system, fold, each.kept] for group, system, fold, each in trainings]
    headings = ("", "system", "fold", "which epoch was kept")
    return Table("Kept epochs", headings, unrepeated(rows), 4, folded=len(rows) > MOST_ROWS)
