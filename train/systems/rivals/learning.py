"""What the learnt rivals share: seeded training by the one loop, a head that starts at the mean, prediction in chunks.

In: a module, how its batches are drawn, and its loss. Out: the module trained in place, see `train.learning.loop`.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from magnet_core.seeding import named_rng
from train.data.slide import Slide
from train.data.training_side import TrainingSide
from train.learning.loop import LoopSettings, Terms, Trainee, train
from train.learning.progress import Progress
from train.learning.setting import Setting
from train.learning.validation import validator
from train.settings.rivals import FallingRateSettings, RivalSettings

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


class Draws:
    """The batches of each epoch, drawn one epoch after the other from a generator that depends on the seed alone.

    Its state is that of the generator before the epoch under way, so that a training that goes on meets it again.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._before: Mapping[str, Any] = rng.bit_generator.state

    def draw(self, batches_of: Callable[[np.random.Generator], Sequence[Batch]]) -> Sequence[Batch]:
        """Draw the next epoch."""
        self._before = self._rng.bit_generator.state
        return batches_of(self._rng)

    def state_dict(self) -> dict[str, Any]:
        """State before the epoch under way."""
        return dict(self._before)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to such a state."""
        self._rng.bit_generator.state = state


def learn(
    module: nn.Module,
    batches_of: Callable[[np.random.Generator], Sequence[Batch]],
    loss_of: Callable[[Batch], Tensor],
    *,
    optimiser: torch.optim.Optimizer,
    course: RivalSettings,
    setting: Setting,
    side: TrainingSide | None = None,
    predict: Callable[[Slide], np.ndarray] | None = None,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> Progress:
    """Train a module. Where `side` has something held out, `predict` is judged on it after each epoch."""
    draws = Draws(named_rng(setting.seed, setting.title))

    def loss_and_terms(batch: Batch) -> tuple[Tensor, Terms]:
        return loss_of(batch), {}

    trainee: Trainee[Batch, Batch] = Trainee(
        module,
        optimiser,
        draw_epoch=lambda _: draws.draw(batches_of),
        gather=lambda batches: batches,
        loss_of=loss_and_terms,
        schedule=schedule,
        draws={"draws": draws},
    )
    epochs = setting.epochs or course.epochs
    loop = LoopSettings(epochs, course.clip_norm, course.ema, setting.patience, setting.compute.checkpoint_minutes)
    with ExitStack() as stack:
        folder = setting.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        validate = None if side is None or predict is None else validator(side, predict)
        return train(trainee, loop, folder=folder, title=f"{setting.title}{setting.stage}", validate=validate)


def falling(
    optimiser: torch.optim.Optimizer, config: FallingRateSettings, *, steps_of_epoch: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """A learning rate that falls as its settings say."""
    steps = config.step_epochs * steps_of_epoch
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: config.step_factor ** (step // steps))


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
