"""The training loop: one page.

In: a predictor, training slides with their labels. Out: the predictor trained in place, and how it went. A step is one
subgraph: encode its pixels, run the graph, Eq. 3 to 5, back through both.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from magnet_core.console import progress
from magnet_core.errors import MagnetError
from magnet_core.interrupt import StopRequest
from magnet_core.losses import magnet_loss
from train.data.epoch import epoch_batches, plan_epoch
from train.data.labels import SlideLabels
from train.data.raw_counts import RawCounts
from train.data.slide import Slide
from train.data.subgraph import Batch, SubgraphPlan
from train.learning.checkpoint import Progress, TrainingState
from train.learning.optimiser import build_average, build_optimiser, build_schedule, clip_gradient
from train.model.predictor import Predictor
from train.settings.fit import FitConfig

LOG_EVERY = 10  # steps
SHOWN_STEPS = 100  # whose mean loss the bar shows

Validate = Callable[[Predictor], float]  # a score, the higher the better


def train(
    predictor: Predictor,
    slides: Sequence[Slide],
    labels: SlideLabels,
    *,
    config: FitConfig,
    folder: Path,
    validate: Validate | None = None,
    raw_counts: RawCounts | None = None,
) -> Progress:
    """Train a predictor, or go on where the folder's checkpoint stands; leaves the best weights in it.

    The weights kept are those of the epoch with the best score where there is a `validate`, else the last.
    """
    plan = SubgraphPlan.to_train(predictor.model, halo=config.halo, pixels=predictor.encoder is not None)
    device = next(predictor.parameters()).device
    steps_of_epoch = sum(-(-len(slide.fine) // config.optim.batch_size) for slide in slides)
    steps = steps_of_epoch * config.optim.epochs
    state = start(predictor, steps, config)
    settings = config.plain()
    if state.resume(folder, config=settings):
        tqdm.write(f"going on after step {state.progress.step} of {steps}")
    with (
        SummaryWriter(folder / "tensorboard", purge_step=state.progress.step) as board,
        progress(total=steps, initial=state.progress.step, desc="train", unit="step", leave=None) as bar,
        StopRequest() as stop,
    ):
        saved_at = time.monotonic()
        for epoch in range(state.progress.epoch, config.optim.epochs):
            if is_stale(state.progress, config.validation.patience):
                break
            parts = plan_epoch(slides, epoch, config=config)[state.progress.step_of_epoch :]
            for batch in epoch_batches(parts, labels, plan=plan, device=device, raw_counts=raw_counts):
                loss, terms = training_step(state, batch, config=config)
                _log(board, loss, terms, step=state.progress.step)
                bar.update()
                bar.set_postfix_str(_status(state.progress, config), refresh=False)
                if stop.requested or time.monotonic() - saved_at > 60 * config.compute.checkpoint_minutes:
                    state.save(folder, config=settings)
                    saved_at = time.monotonic()
                    stop.raise_if_requested()
            end_epoch(state, validate, folder=folder, board=board)
        state.save(folder, config=settings)  # what comes after training may be stopped too
        stop.raise_if_requested()
    state.finish(folder)
    return state.progress


def start(predictor: Predictor, steps: int, config: FitConfig) -> TrainingState:
    """Build what training changes, at its start."""
    modules: dict[nn.Module, float] = {predictor.model: 1.0}
    if predictor.encoder is not None:
        modules[predictor.encoder] = config.optim.encoder_lr
    optimiser = build_optimiser(modules, config.optim)
    average = build_average(predictor, config.optim)
    if config.compute.compile and predictor.encoder is not None:
        predictor.encoder.compile()
    return TrainingState(predictor, average, optimiser, build_schedule(optimiser, steps, config.optim))


def training_step(state: TrainingState, batch: Batch, *, config: FitConfig) -> tuple[float, Mapping[str, Tensor]]:
    """Learn from one subgraph; returns its loss and the loss's terms."""
    state.predictor.train()
    loss, terms = magnet_loss(state.predictor(batch), batch.labels, graph=batch.graph, config=config.loss)
    value = loss.item()
    _check_finite(value, batch, step=state.progress.step)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    clip_gradient(state.optimiser, config.optim.clip_norm)
    state.optimiser.step()
    state.schedule.step()
    if state.average is not None:
        state.average.update_parameters(state.predictor)
    state.progress.step += 1
    state.progress.step_of_epoch += 1
    state.progress.losses.append(value)
    return value, terms


def end_epoch(state: TrainingState, validate: Validate | None, *, folder: Path, board: SummaryWriter) -> None:
    """Close an epoch: its mean loss, and, if it scores better than all before, its weights are kept."""
    done = state.progress
    done.history.append(float(np.mean(done.losses)))
    done.epoch, done.step_of_epoch, done.losses = done.epoch + 1, 0, []
    if validate is None:
        return
    score = validate(state.judged)
    board.add_scalar("validation/pcc_gene", score, done.step)
    is_best = score > done.best_score
    done.scores.append(score)
    if is_best:
        done.best_epoch = done.epoch
        state.keep_best(folder)


def is_stale(done: Progress, patience: int) -> bool:
    """Whether the last `patience` epochs brought no better score; patience 0 never loses it."""
    return 0 < patience <= done.epoch - done.best_epoch and bool(done.scores)


def _check_finite(loss: float, batch: Batch, *, step: int) -> None:
    if not np.isfinite(loss):
        raise MagnetError(
            f"step {step}, slide '{batch.slide.slide_id}', rows {batch.rows[0]} to {batch.rows[-1]}",
            expected="a finite loss",
            found=str(loss),
            remedy="lower optim.lr, or set optim.clip_norm",
        )


def _status(done: Progress, config: FitConfig) -> str:
    score = f", validation {done.scores[-1]:.4f}" if done.scores else ""
    return f"epoch {done.epoch + 1}/{config.optim.epochs}, loss {np.mean(done.losses[-SHOWN_STEPS:]):.4f}{score}"


def _log(board: SummaryWriter, loss: float, terms: Mapping[str, Tensor], *, step: int) -> None:
    if step % LOG_EVERY:
        return
    board.add_scalar("loss/total", loss, step)
    for name, term in terms.items():
        board.add_scalar(f"loss/{name}", term.item(), step)
