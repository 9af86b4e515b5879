"""A leg of a trial: MagNet trained on part of the training side up to an epoch, judged on what is held out of it.

In: a configuration, a folder with the checkpoint of the leg before, an epoch. Out: the scores so far and, at the end,
the PCC per gene on what is held out, of the epoch that a fit of these settings would keep: the best one where a fit
holds something out, else the last. No test slide is asked, and no trial is trained again on all slides, as a fit may
be. Slides are opened once a process for each set of data settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path

import torch

from magnet_core.errors import MagnetError
from magnet_core.files import naming
from train.data.fold_sides import open_fold
from train.data.training_side import TrainingSide, hold_out
from train.pipeline import judge
from train.settings.fit import DataConfig, FitConfig, ValidationConfig
from train.sweep.study import LEG, locked


@dataclass(frozen=True)
class Leg:
    """What came of a trial so far.

    scores   of each epoch, from the first
    kept     the epoch (from 1) by which the trial is judged, once it is over; 0 before
    refused  why it cannot be trained, or trained further; empty where it can
    """

    scores: Sequence[float] = ()
    kept: int = 0
    refused: str = ""


@dataclass(frozen=True)
class Bench:
    """The training side of the fold, with what is held out of it, on which trials are judged.

    keeps_best  whether a fit holds something out to choose its epoch by
    """

    side: TrainingSide
    keeps_best: bool


class Benches:
    """The benches that a process has open, by the settings that decide what is learnt from and what is held out."""

    def __init__(self) -> None:
        self._benches: dict[tuple[DataConfig, ValidationConfig, int], Bench] = {}

    def bench(self, config: FitConfig) -> Bench:
        """Open the slides of a configuration, unless they are open."""
        key = (config.data, config.validation, config.seed)
        if key not in self._benches:
            side = open_fold(config).training
            keeps_best = bool(hold_out(side, config).held_out)
            self._benches[key] = Bench(hold_out_some(side, config), keeps_best)
        return self._benches[key]


@lru_cache(maxsize=1)
def benches_of_process() -> Benches:
    """What this process has open for its trials."""
    return Benches()


def train_leg(config: FitConfig, folder: Path, epochs: int) -> Leg:
    """Train a trial up to so many epochs, on from the checkpoint in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with naming(folder), locked(folder / LEG):  # a process that outlives its command for now may be at it
            bench = benches_of_process().bench(config)
            done = judge(config, bench.side, folder, epochs=epochs)
    except (MagnetError, torch.OutOfMemoryError) as error:
        return Leg(refused=str(error).splitlines()[0])
    if done.epoch < config.optim.epochs and not done.is_stale(config.validation.patience):
        return Leg(done.scores)
    kept = done.best_epoch if bench.keeps_best else done.epoch
    if not kept or not isfinite(done.scores[kept - 1]):
        unfit = MagnetError("validation", expected="a score", found=str(done.scores[-1]), remedy="lower optim.lr")
        return Leg(done.scores, refused=str(unfit))
    return Leg(done.scores, kept)


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
