"""Where MagNet's training stands: weights, running average, optimiser, schedule, and how far it is."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from magnet_core.errors import MagnetError
from magnet_core.files import sync
from train.predictor import Predictor
from train.unfinished import BEST, CHECKPOINT, go_on, read_checkpoint, write_checkpoint

# Settings that do not change what is learnt, or not by more than rounding.
NEUTRAL = ("device", "overwrite", "compute.checkpoint_minutes", "compute.resident")


@dataclass
class Progress:
    """How far a training is: epochs done, steps done in the next one, and what was seen on the way.

    losses       of the steps of the epoch under way
    history      mean loss of each whole epoch
    scores       on the validation slides, of each whole epoch
    best_epoch   the epoch (from 1) of the best score; 0 before there is one
    """

    epoch: int = 0
    step_of_epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def kept_epoch(self) -> int:
        """The epoch (from 1) whose weights are kept."""
        return self.best_epoch or self.epoch

    @property
    def best_score(self) -> float:
        """The best score so far, minus infinity before there is one."""
        return self.scores[self.best_epoch - 1] if self.best_epoch else float("-inf")


@dataclass
class TrainingState:
    """All that changes while training."""

    predictor: Predictor
    average: AveragedModel | None
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    progress: Progress = field(default_factory=Progress)

    @property
    def judged(self) -> Predictor:
        """The weights that are validated and kept: the running average where there is one."""
        return self.predictor if self.average is None else cast(Predictor, self.average.module)

    def save(self, folder: Path, *, config: dict[str, Any]) -> None:
        """Write the checkpoint."""
        others = {"progress": asdict(self.progress), "config": config}
        write_checkpoint(folder, self._parts(), others, device=self._device)

    def resume(self, folder: Path, *, config: dict[str, Any]) -> bool:
        """Go on from the checkpoint, if there is one; one of another configuration is an error."""
        values = read_checkpoint(folder)
        if values is None:
            return False
        if different := differing(values["config"], config):
            raise MagnetError(
                folder / CHECKPOINT,
                expected="an unfinished run of this configuration",
                found=f"one that differs in {', '.join(different)}",
                remedy="give another --name, or --overwrite",
            )
        go_on(folder, self._parts(), values, device=self._device)
        self.progress = Progress(**values["progress"])
        return True

    def keep_best(self, folder: Path) -> None:
        """Write the weights that are judged as the best so far."""
        partial = folder / f"{BEST}.partial"
        save_file({name: value.detach().contiguous() for name, value in self.judged.state_dict().items()}, partial)
        sync(partial)
        partial.replace(folder / BEST)

    def finish(self, folder: Path) -> None:
        """Leave the best weights in the predictor, or the running average, or the last ones."""
        if self.progress.best_epoch:
            self.predictor.load_state_dict(load_file(folder / BEST))
        elif self.average is not None:
            self.predictor.load_state_dict(self.average.module.state_dict())

    @property
    def _device(self) -> torch.device:
        return next(self.predictor.parameters()).device

    def _parts(self) -> dict[str, Any]:
        average: dict[str, nn.Module] = {} if self.average is None else {"average": self.average}
        return {"predictor": self.predictor, "optimiser": self.optimiser, "schedule": self.schedule, **average}


def differing(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Names of the settings in which two configurations differ, such as optim.lr."""
    names = []
    for key in sorted(one.keys() | other.keys()):
        first, second = one.get(key), other.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            names += differing(first, second, f"{prefix}{key}.")
        elif first != second and f"{prefix}{key}" not in NEUTRAL:
            names.append(f"{prefix}{key}")
    return names
