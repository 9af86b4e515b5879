"""The training loop: one page.

In: an encoder to fine-tune, a model, training slides with their labels. Out: both trained in place, and the mean loss
of each epoch. A step is one subgraph: encode its pixels, run the graph, Eq. 3 to 5, back through both.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from magnet_core.backbones import Encoder
from magnet_core.console import progress
from magnet_core.errors import MagnetError
from magnet_core.losses import magnet_loss
from magnet_core.model import MagNet
from magnet_core.registry import look_up
from magnet_core.symmetry import NUM_SYMMETRIES, turn
from train.config import FitConfig, OptimConfig
from train.dataset import Slide
from train.sampler import SAMPLERS
from train.subgraph import Batch, build_batch

SlideLabels = Mapping[str, dict[str, np.ndarray | None]]  # by slide id, then level: (N, P) float32


def train(
    encoder: Encoder, model: MagNet, slides: Sequence[Slide], labels: SlideLabels, *, config: FitConfig, log_dir: Path
) -> list[float]:
    """Train encoder and model together; returns the mean loss of each epoch."""
    device = next(model.parameters()).device
    rng = np.random.default_rng(config.seed)
    steps = sum(-(-len(slide.fine) // config.optim.batch_size) for slide in slides) * config.optim.epochs
    optimiser = build_optimiser({encoder: config.optim.encoder_lr, model: 1.0}, config.optim)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate(step, steps, config.optim))
    history = []
    encoder.train()
    model.train()
    with SummaryWriter(log_dir) as board, progress(total=steps, desc="train", unit="step") as bar:
        for epoch in range(config.optim.epochs):
            losses = []
            for batch in epoch_batches(slides, labels, config=config, hops=model.config.reach, rng=rng, device=device):
                loss, parts = training_loss(encoder, model, batch, config=config)
                _check_finite(loss, batch, step=bar.n)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                _clip(optimiser, config.optim.clip_norm)
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
                _log(board, loss, parts, step=bar.n)
                bar.update()
                bar.set_postfix_str(
                    f"epoch {epoch + 1}/{config.optim.epochs}, loss {np.mean(losses):.4f}", refresh=False
                )
            history.append(float(np.mean(losses)))
    return history


def training_loss(
    encoder: Encoder, model: MagNet, batch: Batch, *, config: FitConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one subgraph and its parts."""
    pixels = torch.from_numpy(batch.slide.fine.pixels(batch.rows)).to(batch.labels.fine.device)
    fine = batch.slide.fine.scale(encoder(turn(pixels, batch.symmetry), token_grid=1).pooled)
    return magnet_loss(model(fine, batch.graph), batch.labels, graph=batch.graph, config=config.loss)


def epoch_batches(
    slides: Sequence[Slide],
    labels: SlideLabels,
    *,
    config: FitConfig,
    hops: int,
    rng: np.random.Generator,
    device: torch.device,
) -> Iterator[Batch]:
    """Yield the subgraphs of one epoch, each of one slide, slides mixed."""
    sampler = look_up(SAMPLERS, config.sampler, where="sampler")
    parts = [(slide, rows) for slide in slides for rows in sampler(slide.fine.centres_um, config.optim.batch_size, rng)]
    for position in rng.permutation(len(parts)):
        slide, rows = parts[position]
        symmetry = int(rng.integers(NUM_SYMMETRIES)) if config.augment else 0
        yield build_batch(slide, rows, labels[slide.slide_id], hops=hops, device=device, symmetry=symmetry)


def build_optimiser(modules: Mapping[nn.Module, float], config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimiser over modules, each with its factor of the learning rate; biases and norms are not decayed."""
    groups = [
        {"params": parameters, "lr": factor * config.lr, "weight_decay": decay}
        for module, factor in modules.items()
        for decay, parameters in (
            (config.weight_decay, [p for p in module.parameters() if p.requires_grad and p.ndim > 1]),
            (0.0, [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]),
        )
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Factor of the learning rate at a step: linear warm-up, then cosine down to `final_lr`."""
    warmup = config.warmup * steps
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _clip(optimiser: torch.optim.Optimizer, clip_norm: float) -> None:
    if clip_norm > 0:
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, clip_norm)


def _check_finite(loss: Tensor, batch: Batch, *, step: int) -> None:
    if not torch.isfinite(loss):
        raise MagnetError(
            f"step {step}, slide '{batch.slide.slide_id}', rows {batch.rows[0]} to {batch.rows[-1]}",
            expected="a finite loss",
            found=str(loss.item()),
            remedy="lower optim.lr, or set optim.clip_norm",
        )


def _log(board: SummaryWriter, loss: Tensor, parts: Mapping[str, Tensor], *, step: int) -> None:
    board.add_scalar("loss/total", loss.item(), step)
    for name, part in parts.items():
        board.add_scalar(f"loss/{name}", part.item(), step)
