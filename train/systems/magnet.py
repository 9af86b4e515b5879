"""MagNet behind the interface of all compared systems: trained by `train.learning.loop`, kept in a folder.

In: a `FitConfig`, a folder. Out: a trained run in the folder, and predictions. A training that was stopped goes on.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from magnet_core.console import logger
from magnet_core.device import pick_device
from magnet_core.global_seeds import seed_everything
from magnet_core.losses import magnet_loss
from magnet_core.model import MagNet
from magnet_core.ranks import ranks
from magnet_core.settings.loss import LossConfig
from train.data.epoch import draw_epoch, epoch_batches
from train.data.rows import Rows
from train.data.slide import Slide
from train.data.subgraph import Batch, SubgraphSpec
from train.data.training_side import TrainingSide
from train.learning.checkpoint import CHECKPOINT, forget
from train.learning.loop import LoopSettings, Terms, Trainee, train
from train.learning.optimiser import build_optimiser, build_schedule
from train.learning.progress import Progress
from train.learning.stage_one import StageOne
from train.learning.trained_run import TrainedRun, load_run, save_run
from train.learning.validation import validator
from train.model.build import build_predictor
from train.model.linear_path import LinearPath
from train.model.placement import place_features
from train.model.predictor import Predictor
from train.model.whole_slide import predict_slide
from train.settings.fit import FitConfig
from train.systems.plain.ridge import FeatureRidge

# N fine rows of a slide, P panel genes

log = logger(__name__)

HEADS = "heads"  # below a training's folder: that of the heads on cached features, which comes first


class MagNetSystem:
    """The paper's model; `save` leaves it in `folder`, from where `load_run` reads it back.

    epochs  after which training ends, on a schedule laid for all of the configuration's; None for all
    heads   a finished run of the same settings on the same side but for its frozen encoder: its heads are those that
            would be trained first
    """

    def __init__(
        self,
        config: FitConfig,
        folder: Path,
        *,
        title: str = "train",
        epochs: int | None = None,
        heads: Path | None = None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._title = title
        self._epochs = epochs
        self._heads = heads
        self.predictor: Predictor

    def save(self, training: TrainingSide, told: Mapping[str, Any]) -> None:
        """Leave the trained run in the folder, with what is told of its training."""
        first = training.slides[0]
        made = StageOne.of(first.fine.geometry_header.get("settings", {}), first.features_header)
        digest = first.features_header["settings_digest"]
        run = TrainedRun(self._config, training.panel, self.predictor, digest, made)
        save_run(self._folder, run, extra={"fold": self._config.fold, **told})

    def fit(self, training: TrainingSide) -> Progress:
        """Train, or go on where the folder's checkpoint stands; no run is saved."""
        config = self._config
        self.predictor = build_predictor(config, training.slides[0], num_genes=len(training.panel))
        self.predictor.to(pick_device(config.device))
        set_mean_output(self.predictor.model, training.learnt)
        log.info(place_features(self.predictor, training.slides, config.compute.resident))
        self._folder.mkdir(parents=True, exist_ok=True)
        if config.starts_with_heads:
            self._start_heads(training)
        of_encoder = config.of_encoder()
        done = train(
            magnet_trainee(self.predictor, training.learnt, of_encoder),
            replace(loop_settings(of_encoder), epochs=self._epochs or of_encoder.optim.epochs),
            folder=self._folder,
            title=self._title,
            validate=validator(training, self.predict),
            settings=config.meant(training.num_patients).plain(),
        )
        forget(self._folder / HEADS)
        if config.ridge > 0 and self.predictor.encoder is None:
            self.predictor.linear = self._linear_path(training.learnt)
        return done

    def _linear_path(self, side: TrainingSide) -> LinearPath:
        """Fit PCA-256 and ridge to what the network has learnt from, on the levels that it reads."""
        contexts = self.predictor.model.context_dims
        ridge = FeatureRidge(contexts)
        ridge.fit(side)
        weight, bias = map(torch.from_numpy, ridge.affine())
        linear = LinearPath(weight, bias, share=self._config.ridge, contexts=contexts)
        return linear.to(pick_device(self._config.device))

    def _start_heads(self, training: TrainingSide) -> None:
        """Train the heads as with a frozen encoder, where the training with the encoder has not begun yet.

        The seed is set anew before each of the two, so that both are what they are by themselves.
        """
        if ranks().agree((self._folder / CHECKPOINT).exists()):
            return
        heads = load_run(self._heads).predictor.model if self._heads else self._trained_heads(training)
        self.predictor.model.load_state_dict(heads.state_dict())
        seed_everything(self._config.seed)

    def _trained_heads(self, training: TrainingSide) -> MagNet:
        config, folder = self._config.of_heads(), self._folder / HEADS
        seed_everything(config.seed)
        heads = build_predictor(config, training.slides[0], num_genes=len(training.panel))
        heads.to(pick_device(config.device))
        set_mean_output(heads.model, training.learnt)
        place_features(heads, training.slides, config.compute.resident)
        folder.mkdir(exist_ok=True)
        train(
            magnet_trainee(heads, training.learnt, config),
            loop_settings(config),
            folder=folder,
            title=f"{self._title}, heads on cached features",
            settings=config.plain(),
        )
        return heads.model

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P)."""
        return predict_slide(self.predictor, slide)


def loop_settings(config: FitConfig) -> LoopSettings:
    """What the loop reads of a configuration."""
    optim = config.optim
    return LoopSettings(
        optim.epochs, optim.clip_norm, optim.ema, config.validation.patience, config.compute.checkpoint_minutes
    )


def magnet_trainee(predictor: Predictor, side: TrainingSide, config: FitConfig) -> Trainee[Rows, Batch]:
    """What the loop trains: subgraphs of the side's slides, and Eq. 3 to 5 on each."""
    device = next(predictor.parameters()).device
    spec = SubgraphSpec.to_train(predictor.model, halo=config.halo, pixels=predictor.encoder is not None)
    raw_counts = None if config.loss.likelihood == "mse" else side.raw_counts

    modules: dict[nn.Module, float] = {predictor.model: 1.0}
    if predictor.encoder is not None:
        modules[predictor.encoder] = config.optim.encoder_lr
    optimiser = build_optimiser(modules, config.optim)
    if config.compute.compile and predictor.encoder is not None:
        predictor.encoder.compile()
    steps_of_epoch = sum(-(-len(slide.fine) // config.optim.batch_size) for slide in side.slides)
    return Trainee(
        predictor,
        optimiser,
        draw_epoch=lambda epoch: draw_epoch(side.slides, epoch, config=config),
        gather=lambda parts: epoch_batches(parts, side.labels, spec=spec, device=device, raw_counts=raw_counts),
        loss_of=ranks().parallel(LossOfBatch(predictor, config.loss)),
        schedule=build_schedule(optimiser, steps_of_epoch * config.optim.epochs, config.optim),
    )


class LossOfBatch(nn.Module):
    """The loss of a batch, as one module: what several processes compute together."""

    def __init__(self, predictor: Predictor, config: LossConfig) -> None:
        super().__init__()
        self.predictor = predictor
        self.config = config

    def forward(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Return Eq. 5 and its terms, see `magnet_loss`."""
        return magnet_loss(self.predictor(batch), batch.labels, graph=batch.graph, config=self.config)


def set_mean_output(model: MagNet, side: TrainingSide) -> None:
    """Start the heads at the mean expression of what is learnt from."""
    device = next(model.parameters()).device

    def mean(level: str) -> torch.Tensor | None:
        of_level = [part for slide in side.slides if (part := side.labels[slide.slide_id][level]) is not None]
        learnt = [part[~np.isnan(part).any(axis=1)] for part in of_level]  # NaN where a held-out block is near
        rows = np.concatenate(learnt) if learnt else np.empty(0)
        return torch.from_numpy(rows.mean(axis=0)).to(device) if len(rows) else None

    target = side.slides[0].target
    fine = mean(target.fine)
    assert fine is not None
    contexts = {name: level_mean for name in target.contexts if (level_mean := mean(name)) is not None}
    model.set_output_bias(fine, contexts)
