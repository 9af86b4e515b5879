"""One trial: MagNet trained on part of the training side, judged on what is held out of it. No test slide is asked.

In: a configuration. Out: its PCC per gene on what is held out, of the epoch that a fit of these settings would keep:
the best one where a fit holds something out, else the last. No trial is trained again on all slides, as a fit may be.
Slides are opened once a process for each set of data settings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from magnet_core.errors import MagnetError
from train.data.fold_sides import open_fold
from train.data.training_side import TrainingSide, hold_out
from train.pipeline import judge
from train.settings.fit import DataConfig, FitConfig, ValidationConfig

Report = Callable[[int, float], None]  # an epoch, from 1, and its score; may raise to stop the trial


@dataclass(frozen=True)
class Outcome:
    """What a trial is judged by: a score, and the epoch (from 1) it is of."""

    score: float
    epoch: int


@dataclass(frozen=True)
class Bench:
    """The training side of the fold, with what is held out of it, on which trials are judged.

    keeps_best  whether a fit holds something out to choose its epoch by
    """

    side: TrainingSide
    keeps_best: bool


class Objective:
    """Runs trials in this process."""

    def __init__(self) -> None:
        self._benches: dict[DataConfig, Bench] = {}

    def bench(self, config: FitConfig) -> Bench:
        """Open the slides of a configuration, unless they are open."""
        if config.data not in self._benches:
            side = open_fold(config).training
            keeps_best = bool(hold_out(side, config).held_out)
            self._benches[config.data] = Bench(hold_out_some(side, config), keeps_best)
        return self._benches[config.data]

    def train(self, config: FitConfig, folder: Path, report: Report) -> Outcome:
        """Train one trial with `folder` for its checkpoints; raises `MagnetError` where nothing finite came out."""
        bench = self.bench(config)
        done = judge(config, bench.side, folder, report)
        epoch = done.best_epoch if bench.keeps_best else done.epoch
        score = done.scores[epoch - 1] if epoch else float("nan")
        if not isfinite(score):
            raise MagnetError("validation", expected="a score", found=str(done.scores[-1]), remedy="lower optim.lr")
        return Outcome(score, epoch)


def hold_out_some(side: TrainingSide, config: FitConfig) -> TrainingSide:
    """Hold out as a fit of few patients does by default, whatever the settings say; nothing to judge by is an error."""
    share = config.validation.share or min(ValidationConfig().share, 1 / side.num_patients)  # one patient
    held = hold_out(side, config.changed(validation={"few": "hold_out", "share": share}))
    if not held.held_out:
        raise MagnetError(
            "sweep",
            expected="2 training patients or more, or a slide with room for blocks of tissue that are not learnt from",
            found=f"{side.num_patients} ({', '.join(slide.slide_id for slide in side.slides)})",
            remedy="add slides of another patient, or choose a --fold that trains on more",
        )
    return held
