"""A training as `train.learning.loop` holds it, for the benchmarks to take apart: steps one by one, and their waits.

In: a slide and settings. Out: the seconds of steps taken as the trainer takes them, subgraphs being read ahead by its
own thread, and how much of them it waited for the next subgraph.
"""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch

from magnet_core.device import pick_device
from train.data.rows import Rows
from train.data.slide import Slide
from train.data.subgraph import Batch
from train.data.training_side import TrainingSide
from train.learning.loop import Trainee, start, training_step
from train.learning.progress import TrainingState
from train.model.build import build_predictor
from train.model.placement import place_features
from train.settings.fit import FitConfig, load_config
from train.systems.magnet import loop_settings, magnet_trainee


@dataclass(frozen=True)
class Timing:
    """Seconds of one step, on average over a run of steps, and those of them spent waiting for the next subgraph."""

    step_s: float
    wait_s: float


@dataclass(frozen=True)
class TrainingRun:
    """What stays and what changes in a training on one slide."""

    slide: Slide
    config: FitConfig
    trainee: Trainee[Rows, Batch]
    state: TrainingState

    @classmethod
    def build(cls, slide: Slide, settings: Sequence[str]) -> "TrainingRun":
        """Build all that `train fit` builds of the defaults with these settings; the slide's features are placed."""
        config = load_config(None, settings)
        labels = {slide.slide_id: slide.labels(slide.genes, config.data.normalise)}
        predictor = build_predictor(config, slide, num_genes=len(slide.genes)).to(pick_device(config.device))
        place_features(predictor, [slide], config.compute.resident)
        side = TrainingSide([slide], labels, slide.genes, config.data.normalise)
        trainee = magnet_trainee(predictor, side, config)
        return cls(slide, config, trainee, start(trainee, loop_settings(config)))

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return next(self.state.module.parameters()).device

    def parts(self, epoch: int) -> Sequence[Rows]:
        """The parts of an epoch, in its order."""
        return self.trainee.draw_epoch(epoch)

    def batches(self, parts: Sequence[Rows]) -> Generator[Batch]:
        """Subgraphs, read ahead."""
        yield from self.trainee.gather(parts)

    def step(self, batch: Batch) -> None:
        """Learn from one subgraph."""
        training_step(self.trainee, self.state, batch, clip_norm=self.config.optim.clip_norm)

    def time_steps(self, parts: Sequence[Rows]) -> Timing:
        """Take one step for each of two parts or more, from when the first subgraph has come.

        A GPU works on a step's end while the next subgraph is waited for; the wait is counted in full all the same.
        """
        batches = self.batches(parts)
        batch: Batch | None = next(batches)
        self.finish()
        started, waited_s = time.perf_counter(), 0.0
        while batch is not None:
            self.step(batch)
            asked = time.perf_counter()
            batch = next(batches, None)
            waited_s += time.perf_counter() - asked
        self.finish()
        return Timing((time.perf_counter() - started) / len(parts), waited_s / (len(parts) - 1))

    def time_epoch(self, epoch: int) -> float:
        """Seconds of a whole epoch, from drawing its parts to its last step."""
        self.finish()
        started = time.perf_counter()
        for batch in self.batches(self.parts(epoch)):
            self.step(batch)
        self.finish()
        return time.perf_counter() - started

    def finish(self) -> None:
        """Wait until a GPU has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
