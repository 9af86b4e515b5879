"""The training loop of every learnt system, on one page.

In: a `Trainee`: a module, its optimiser, how its batches are drawn, its loss. Out: the module trained in place, and how
it went. A training that was stopped, by a signal or a kill, resumes at its last checkpoint and ends as if it had
never stopped. Where something is held out, the weights kept are those of the epoch with the best score.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from magnet_core.console import notice, progress
from magnet_core.errors import MagnetError
from magnet_core.interrupt import StopRequest
from magnet_core.ranks import ranks
from train.learning.optimiser import build_average, clip_gradient
from train.learning.progress import Progress, TrainingState

LOG_EVERY = 10  # steps
SHOWN_STEPS = 100  # whose mean loss the bar shows

Drawn = TypeVar("Drawn")  # the batches of an epoch, one for each step
Batch = TypeVar("Batch")  # what a step learns from

Terms = Mapping[str, Tensor]
Validate = Callable[[], float]  # the score of the module now; higher is better


@dataclass(frozen=True)
class LoopSettings:
    """How long and how carefully a module is trained.

    clip_norm           the gradient is scaled down to this norm; 0 leaves it
    ema                 share of the past that a running average of the weights keeps at each step; 0 for none
    patience            epochs without a better score before training stops; 0 trains all of them
    checkpoint_minutes  between two checkpoints
    """

    epochs: int
    clip_norm: float = 0.0
    ema: float = 0.0
    patience: int = 0
    checkpoint_minutes: float = 10.0


@dataclass(frozen=True)
class Trainee(Generic[Drawn, Batch]):
    """What the loop trains.

    module          all that is trained, averaged and kept
    draw_epoch      what an epoch (from 0) consists of; the same one is drawn again after a stop
    gather          makes batches of it, in order
    loss_of         the loss of a batch, and its terms by name
    schedule        of the learning rate, moved after every step
    draws           state of the generator that `draw_epoch` draws from, if it has one of its own
    """

    module: nn.Module
    optimiser: torch.optim.Optimizer
    draw_epoch: Callable[[int], Sequence[Drawn]]
    gather: Callable[[Sequence[Drawn]], Iterable[Batch]]
    loss_of: Callable[[Batch], tuple[Tensor, Terms]]
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None
    draws: Mapping[str, Any] = field(default_factory=dict)


def train(
    trainee: Trainee[Drawn, Batch],
    loop: LoopSettings,
    *,
    folder: Path,
    title: str = "train",
    validate: Validate | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Progress:
    """Train a module, or resume at the folder's checkpoint; the module ends with the weights that are kept.

    A checkpoint of a training with other `settings` is an error.
    """
    settings = settings or {}
    state = start(trainee, loop)
    done = state.progress
    if state.resume(folder, settings=settings):
        notice(f"{title}: going on after step {done.step}")
    with (
        SummaryWriter(folder / "tensorboard", purge_step=done.step) as board,
        progress(initial=done.step, desc=title, unit="step", leave=None) as bar,
        StopRequest(heeds_second=ranks().size == 1) as stop,
    ):
        saved_at = time.monotonic()
        while done.epoch < loop.epochs and not done.is_stale(loop.patience):
            trainee.module.train()
            drawn = trainee.draw_epoch(done.epoch)
            bar.total = len(drawn) * loop.epochs
            for batch in trainee.gather(drawn[done.step_of_epoch :]):
                loss, terms = training_step(trainee, state, batch, clip_norm=loop.clip_norm)
                _log(board, loss, terms, step=done.step)
                bar.update()
                bar.set_postfix_str(_status(done, loop.epochs), refresh=False)
                share_request(stop)
                if stop.requested or time.monotonic() - saved_at > 60 * loop.checkpoint_minutes:
                    state.save(folder, settings=settings)
                    saved_at = time.monotonic()
                    stop.raise_if_requested()
            end_epoch(trainee, state, validate, folder=folder, board=board)
        state.save(folder, settings=settings)  # the work after training may be stopped too
        share_request(stop)
        stop.raise_if_requested()
    state.finish(folder)
    trainee.module.eval()
    return done


def start(trainee: Trainee[Drawn, Batch], loop: LoopSettings) -> TrainingState:
    """Return all that training changes, as it is at the start."""
    parts = {"optimiser": trainee.optimiser, "schedule": trainee.schedule, **trainee.draws}
    others = {name: part for name, part in parts.items() if part is not None}
    return TrainingState(trainee.module, build_average(trainee.module, loop.ema), others)


def training_step(
    trainee: Trainee[Drawn, Batch], state: TrainingState, batch: Batch, *, clip_norm: float
) -> tuple[float, Terms]:
    """Learn from one batch; returns its loss and the loss's terms."""
    loss, terms = trainee.loss_of(batch)
    value = loss.item()
    if not isfinite(value):
        raise MagnetError(
            f"step {state.progress.step}, {batch}",
            expected="a finite loss",
            found=str(value),
            remedy="lower the learning rate, or set clip_norm",
        )
    trainee.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    clip_gradient(trainee.optimiser, clip_norm)
    trainee.optimiser.step()
    if trainee.schedule is not None:
        trainee.schedule.step()
    if state.average is not None:
        state.average.update_parameters(trainee.module)
    state.progress.step += 1
    state.progress.step_of_epoch += 1
    state.progress.losses.append(value)
    return value, terms


def share_request(stop: StopRequest) -> None:
    """Ask to stop what any process of this training is asked to stop, so that all end after the same step."""
    if ranks().any(stop.requested):
        stop.requested = True


def end_epoch(
    trainee: Trainee[Drawn, Batch],
    state: TrainingState,
    validate: Validate | None,
    *,
    folder: Path,
    board: SummaryWriter,
) -> None:
    """Close an epoch: note its mean loss, and keep its weights if it scores better than all epochs before."""
    done = state.progress
    done.history.append(float(np.mean(done.losses)))
    done.epoch, done.step_of_epoch, done.losses = done.epoch + 1, 0, []
    if validate is None:
        return
    trainee.module.eval()
    with state.judged():
        score = ranks().agree(validate())
        if score > done.best_score:
            state.keep_best(folder)
    done.scores.append(score)
    board.add_scalar("validation/pcc_gene", score, done.step)


def _status(done: Progress, epochs: int) -> str:
    score = f", validation {done.scores[-1]:.4f}" if done.scores else ""
    return f"epoch {done.epoch + 1}/{epochs}, loss {np.mean(done.losses[-SHOWN_STEPS:]):.4f}{score}"


def _log(board: SummaryWriter, loss: float, terms: Terms, *, step: int) -> None:
    if step % LOG_EVERY:
        return
    board.add_scalar("loss/total", loss, step)
    for name, term in terms.items():
        board.add_scalar(f"loss/{name}", term.item(), step)
