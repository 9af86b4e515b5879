"""One trial: MagNet trained on part of the training patients, judged on the rest of them. Test slides are never asked.

In: a configuration. Out: its PCC per gene on the validation slides, of the epoch that a fit of these settings would
keep: the best one where a fit has validation slides of its own, else the last. Slides are opened once a process for
each set of data settings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from magnet_core.errors import MagnetError
from train.data.fold_sides import open_fold
from train.data.training_side import TrainingSide, hold_out
from train.pipeline import judge
from train.settings.fit import DataConfig, FitConfig

Report = Callable[[int, float], None]  # an epoch, from 1, and its score; may raise to stop the trial


@dataclass(frozen=True)
class Outcome:
    """What a trial is judged by: a score, and the epoch (from 1) it is of."""

    score: float
    epoch: int


@dataclass(frozen=True)
class Bench:
    """The training side of the fold, with slides held out on which trials are judged.

    keeps_best  whether a fit has validation slides to choose its epoch by
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
            self._benches[config.data] = Bench(hold_out_one(side, config), keeps_best)
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


def hold_out_one(side: TrainingSide, config: FitConfig) -> TrainingSide:
    """Hold slides out by patient as a fit does; those of one patient where its share comes to none."""
    patients = len({slide.patient for slide in side.slides})
    if patients < 2:
        raise MagnetError(
            "sweep",
            expected="2 training patients or more, as trials are judged on one that they do not learn from",
            found=f"{patients} ({', '.join(slide.slide_id for slide in side.slides)})",
            remedy="add slides of another patient, or choose a --fold that trains on more",
        )
    held = hold_out(side, config)
    if held.held_out:
        return held
    share = min(0.9, 1.5 / patients)  # of 2 patients 1.5, of all others too: 1
    return hold_out(side, config.changed(validation={"share": share}))
