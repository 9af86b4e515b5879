"""What an unfinished training leaves on disk, so that going on ends as if it had never stopped.

checkpoint.pt     state of all that changes while training, torch's random states, and how far it is
best.safetensors  the weights with the best score on the validation slides so far
Both are written beside and then renamed: what lies there is whole.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from magnet_core.errors import MagnetError
from magnet_core.files import replacing
from train.model.predictor import Predictor
from train.settings.build import differing

CHECKPOINT, BEST = "checkpoint.pt", "best.safetensors"


def write_checkpoint(
    folder: Path, parts: Mapping[str, Any], others: Mapping[str, Any], *, device: torch.device
) -> None:
    """Write the state of parts that have a `state_dict`, torch's random states on a device, and other values."""
    values = {name: part.state_dict() for name, part in parts.items()} | {**others, "random": _random_states(device)}
    with replacing(folder / CHECKPOINT) as partial:
        torch.save(values, partial)


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read what `write_checkpoint` wrote; None where there is none, an error where it is damaged."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as parts:  # torch's own reader takes changed bytes for values
            damaged = parts.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} has changed since it was written")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError) as error:
        raise _unusable(path, error, expected="a checkpoint, whole") from error


def go_on(folder: Path, parts: Mapping[str, Any], values: Mapping[str, Any], *, device: torch.device) -> None:
    """Put parts and torch's random states where the folder's checkpoint left them."""
    try:
        for name, part in parts.items():
            part.load_state_dict(values[name])
        _set_random_states(values["random"], device)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, KeyError, ValueError, TypeError) as error:  # another version of the program has other parts
        raise _unusable(folder / CHECKPOINT, error, expected="a checkpoint of this training") from error


def forget(folder: Path) -> None:
    """Remove what an unfinished training left."""
    for name in (CHECKPOINT, BEST):
        for path in folder.glob(f"{name}*"):  # with what a killed process wrote beside
            path.unlink()


def _unusable(path: Path, error: Exception, *, expected: str) -> MagnetError:
    found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return MagnetError(
        path, expected=expected, found=found, remedy="delete it, and give the command again; the training begins anew"
    )


def _random_states(device: torch.device) -> dict[str, Any]:
    """States of the generators that training draws from: the CPU's, and the device's own."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None}


def _set_random_states(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


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
        weights = {name: value.detach().contiguous() for name, value in self.judged.state_dict().items()}
        with replacing(folder / BEST) as partial:
            save_file(weights, partial)

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
