"""MagNet behind the interface of all compared systems: trained by `train.learning.loop`, kept in a run's folder.

In: a `FitConfig`, a folder. Out: a trained run in the folder, and predictions. A training that was stopped goes on.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from magnet_core.device import pick_device
from magnet_core.model import MagNet
from train.data.fold_sides import TrainingSide
from train.data.folds import Fold
from train.data.labels import SlideLabels
from train.data.raw_counts import RawCounts
from train.data.slide import Slide
from train.learning.checkpoint import Progress
from train.learning.loop import train
from train.learning.run_folder import prepare
from train.learning.trained_run import TrainedRun, save_run
from train.learning.validation import split_validation, validator
from train.model.build import build_predictor
from train.model.placement import place_features
from train.model.predictor import Predictor
from train.model.whole_slide import predict_slide
from train.settings.fit import FitConfig

# N fine rows of a slide, P panel genes


class MagNetSystem:
    """The paper's model; `fit` leaves it in `folder`, from where `load_run` reads it back.

    `say` is told where the cached features are read from.
    """

    def __init__(self, config: FitConfig, folder: Path, fold: Fold, *, say: Callable[[str], None] = tqdm.write) -> None:
        self._config = config
        self._folder = folder
        self._fold = fold
        self._say = say
        self.predictor: Predictor | None = None

    def fit(self, training: TrainingSide) -> None:
        """Train, or go on where the folder's checkpoint stands, and save the run."""
        config, panel = self._config, training.panel
        learnt, held_out = split_validation(training.slides, config)
        predictor = build_predictor(config, training.slides[0], num_genes=len(panel)).to(pick_device(config.device))
        set_mean_output(predictor.model, learnt, training.labels)
        self._say(place_features(predictor, training.slides, config.compute.resident))
        raw_counts = None if config.loss.likelihood == "mse" else RawCounts.of(learnt, panel, training.normalise)
        prepare(self._folder)
        done = train(
            predictor,
            learnt,
            training.labels,
            config=config,
            folder=self._folder,
            validate=validator(held_out, training.labels),
            raw_counts=raw_counts,
        )
        extra = describe_training(self._fold, held_out, done)
        save_run(
            self._folder,
            TrainedRun(config, panel, predictor, training.slides[0].features_header["settings_digest"]),
            extra=extra,
        )
        self.predictor = predictor

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P)."""
        assert self.predictor is not None
        return predict_slide(self.predictor, slide)


def describe_training(fold: Fold, held_out: Sequence[Slide], done: Progress) -> dict[str, Any]:
    """Say how a training went, for the run's description."""
    return {
        "fold": fold.index,
        "validation_slides": [slide.slide_id for slide in held_out],
        "validation_scores": done.scores,
        "kept_epoch": done.kept_epoch,
        "losses": done.history,
    }


def set_mean_output(model: MagNet, slides: Sequence[Slide], labels: SlideLabels) -> None:
    """Start the heads at the mean expression of the training slides."""
    device = next(model.parameters()).device

    def mean(level: str) -> torch.Tensor | None:
        known = [part for slide in slides if (part := labels[slide.slide_id][level]) is not None]
        return torch.from_numpy(np.concatenate(known).mean(axis=0)).to(device) if known else None

    target = slides[0].target
    fine = mean(target.fine)
    assert fine is not None
    contexts = {name: level_mean for name in target.contexts if (level_mean := mean(name)) is not None}
    model.set_output_bias(fine, contexts)
