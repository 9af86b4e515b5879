"""The optimiser, its schedule, and the running average of what it trains (paper, section 3)."""

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from train.settings.fit import OptimConfig


def build_optimiser(modules: Mapping[nn.Module, float], config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimiser over modules, each with its factor of the learning rate; biases and norms are not decayed."""
    groups = [
        {"params": parameters, "lr": factor * config.lr, "weight_decay": decay}
        for module, factor in modules.items()
        for decay, parameters in (
            (config.weight_decay, [p for p in module.parameters() if p.requires_grad and p.ndim > 1]),
            (0.0, [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]),
        )
        if parameters
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)


def build_schedule(
    optimiser: torch.optim.Optimizer, steps: int, config: OptimConfig
) -> torch.optim.lr_scheduler.LambdaLR:
    """Build the schedule of the learning rate over a training of so many steps."""
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate(step, steps, config))


def build_average(module: nn.Module, ema: float) -> AveragedModel | None:
    """Build the running average of a module's weights that keeps a share `ema` at each step; None if `ema` is 0."""
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(ema)) if ema else None


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Factor of the learning rate at a step: linear warm-up, then cosine down to `final_lr`."""
    warmup = config.warmup * steps
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def clip_gradient(optimiser: torch.optim.Optimizer, clip_norm: float) -> None:
    """Scale the gradient of all parameters down to a norm; a norm of 0 leaves it as it is."""
    if clip_norm > 0:
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, clip_norm)
