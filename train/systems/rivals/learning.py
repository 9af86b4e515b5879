"""What the learnt rivals share: seeded training, a head that starts at the mean, prediction in chunks.

In: a module, what a batch is, and its loss. Out: the module trained in place, or, of a training that was stopped, a
checkpoint from which the same call goes on and ends as if it had never stopped.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from magnet_core.console import progress
from magnet_core.errors import MagnetError
from magnet_core.interrupt import StopRequest
from magnet_core.seeding import named_rng
from train.data.slide import Slide
from train.learning.checkpoint import go_on, read_checkpoint, write_checkpoint
from train.learning.setting import Setting

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
    It goes on at the checkpoint in the setting's folder, if there is one, which SIGINT, SIGTERM and time leave there.
    """
    rng = named_rng(setting.seed, setting.title)
    course = _Course(rng.bit_generator.state)
    parts: dict[str, Any] = {"module": module, "optimiser": optimiser, "course": course}
    if schedule is not None:
        parts["schedule"] = schedule
    _resume(setting, parts)
    rng.bit_generator.state = course.draws
    with (
        progress(total=epochs, initial=len(course.history), desc=setting.title, unit="epoch", leave=False) as bar,
        StopRequest() as stop,
    ):
        saved_at = time.monotonic()
        for _ in range(len(course.history), epochs):
            module.train()
            course.draws = rng.bit_generator.state
            for batch in batches_of(rng)[len(course.losses) :]:
                if stop.requested or time.monotonic() - saved_at > 60 * setting.compute.checkpoint_minutes:
                    _save(setting, parts)
                    saved_at = time.monotonic()
                    stop.raise_if_requested()
                course.losses.append(_step(loss_of(batch), optimiser))
            if schedule is not None:
                schedule.step()
            course.history.append(float(np.mean(course.losses)))
            course.losses = []
            bar.update()
            bar.set_postfix_str(f"loss {course.history[-1]:.4f}", refresh=False)
        _save(setting, parts)  # what comes after training may be stopped too
        stop.raise_if_requested()
    module.eval()
    return course.history


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


@dataclass
class _Course:
    """How far a training is.

    draws    the generator of batches, as it stood before the epoch under way
    losses   of the batches of the epoch under way
    history  mean loss of each whole epoch
    """

    draws: Mapping[str, Any]
    losses: list[float] = field(default_factory=list)
    history: list[float] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, values: dict[str, Any]) -> None:
        vars(self).update(vars(_Course(**values)))


def _step(loss: Tensor, optimiser: torch.optim.Optimizer) -> float:
    """Learn from the loss of one batch; returns it."""
    value = loss.item()
    if not isfinite(value):
        raise MagnetError("training", expected="a finite loss", found=str(value), remedy="lower its learning rate")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return value


def _save(setting: Setting, parts: Mapping[str, Any]) -> None:
    if setting.folder is not None:
        write_checkpoint(setting.folder, parts, {}, device=setting.device)


def _resume(setting: Setting, parts: Mapping[str, Any]) -> None:
    if setting.folder is not None and (values := read_checkpoint(setting.folder)) is not None:
        go_on(setting.folder, parts, values, device=setting.device)
