"""What the learnt rivals share: seeded training, a head that starts at the mean, prediction in chunks.

In: a module, what a batch is, and its loss. Out: the module trained in place. A rival is trained in one go: what is
kept and resumed is the finished system, not its steps.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from magnet_core.console import progress
from magnet_core.errors import MagnetError
from magnet_core.seeding import named_rng
from train.baselines.base import Setting
from train.dataset import Slide

# N fine rows of a slide, n rows of a chunk, D features, P panel genes

Batch = TypeVar("Batch")

_CHUNK, _ENCODED_CHUNK = 512, 128  # rows predicted at a time: of cached features, and of pixels that are encoded


@contextmanager
def seeded(setting: Setting) -> Iterator[None]:
    """Draw from torch's generators seeded anew, of the CPU and of the setting's device; their states come back after.

    For all of a rival's training: its first weights come from the CPU, its dropout from the device.
    """
    with torch.random.fork_rng(devices=[setting.device] if setting.device.type == "cuda" else []):
        torch.manual_seed(setting.seed)
        yield


def mean_head(width: int, mean: Tensor) -> nn.Linear:
    """Build a linear layer (n, D) -> (n, P) whose bias starts at a mean of training (P,)."""
    head = nn.Linear(width, len(mean))
    with torch.no_grad():
        head.bias.copy_(mean)
    return head


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
                _check_finite(loss)
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


def chunk_rows(setting: Setting) -> int:
    """How many rows are predicted at a time: fewer where the activations of an encoder are held for each."""
    return _ENCODED_CHUNK if setting.finetune else _CHUNK


def cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut rows into runs of at most `size`."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def predict_chunks(slide: Slide, predict: Callable[[np.ndarray], Tensor], *, rows: int) -> np.ndarray:
    """Predict all fine rows (N, P), `rows` at a time and without gradient."""
    with torch.inference_mode():
        return np.concatenate([predict(chunk).float().cpu().numpy() for chunk in cut(np.arange(len(slide.fine)), rows)])


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Parameters of modules that learn."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


def _check_finite(loss: Tensor) -> None:
    if not torch.isfinite(loss):
        raise MagnetError(
            "training", expected="a finite loss", found=str(loss.item()), remedy="lower its learning rate"
        )
