"""The training loop and the chunked prediction that the learnt rivals share.

In: a module, what a batch is, and its loss. Out: the module trained in place. A rival is trained in one go: what is
kept and resumed is the finished system, not its steps.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from magnet_core.console import progress
from magnet_core.errors import MagnetError
from magnet_core.seeding import named_rng
from train.baselines.base import Setting
from train.dataset import Slide

# N fine rows of a slide, n rows of a chunk, P panel genes

Batch = TypeVar("Batch")


def learn(
    module: nn.Module,
    batches_of: Callable[[np.random.Generator], Sequence[Batch]],
    loss_of: Callable[[Batch], Tensor],
    *,
    optimiser: torch.optim.Optimizer,
    epochs: int,
    setting: Setting,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> list[float]:
    """Train for some epochs and return the mean loss of each; `schedule` moves once an epoch.

    `batches_of` draws an epoch's batches from a generator that depends on the seed alone.
    """
    rng = named_rng(setting.seed, setting.title)
    history: list[float] = []
    with progress(total=epochs, desc=setting.title, unit="epoch", leave=False) as bar:
        for _ in range(epochs):
            module.train()
            losses = []
            for batch in batches_of(rng):
                loss = loss_of(batch)
                _check_finite(loss, setting.title)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                losses.append(loss.item())
            if schedule is not None:
                schedule.step()
            history.append(float(np.mean(losses)))
            bar.update()
            bar.set_postfix_str(f"loss {history[-1]:.4f}", refresh=False)
    module.eval()
    return history


def predict_chunks(slide: Slide, predict: Callable[[np.ndarray], Tensor], *, rows: int = 1024) -> np.ndarray:
    """Predict all fine rows (N, P), `rows` at a time and without gradient."""
    chunks = (np.arange(start, min(start + rows, len(slide.fine))) for start in range(0, len(slide.fine), rows))
    with torch.inference_mode():
        return np.concatenate([predict(chunk).float().cpu().numpy() for chunk in chunks])


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Parameters of modules that learn."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


def _check_finite(loss: Tensor, title: str) -> None:
    if not torch.isfinite(loss):
        raise MagnetError(title, expected="a finite loss", found=f"{loss.item()}", remedy="lower its learning rate")
