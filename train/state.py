"""Where a training stands, in memory and on disk: all that going on needs to end as if it had never stopped.

checkpoint.pt   weights, running average, optimiser, schedule, random states, progress and configuration
best.safetensors  the weights with the best score on the validation slides so far
Both are written beside and then renamed: what lies there is whole.
"""

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from magnet_core.errors import MagnetError
from train.predictor import Predictor

CHECKPOINT, BEST = "checkpoint.pt", "best.safetensors"
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
        write_checkpoint(folder, self._parts(), {"progress": asdict(self.progress), "config": config})

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
        go_on(self._parts(), values)
        self.progress = Progress(**values["progress"])
        return True

    def keep_best(self, folder: Path) -> None:
        """Write the weights that are judged as the best so far."""
        partial = folder / f"{BEST}.partial"
        save_file({name: value.detach().contiguous() for name, value in self.judged.state_dict().items()}, partial)
        partial.replace(folder / BEST)

    def finish(self, folder: Path) -> None:
        """Leave the best weights in the predictor, or the running average, or the last ones."""
        if self.progress.best_epoch:
            self.predictor.load_state_dict(load_file(folder / BEST))
        elif self.average is not None:
            self.predictor.load_state_dict(self.average.module.state_dict())

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


def forget(folder: Path) -> None:
    """Remove what an unfinished training left."""
    for name in (CHECKPOINT, BEST):
        (folder / name).unlink(missing_ok=True)


def write_checkpoint(folder: Path, parts: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    """Write the state of parts that have a `state_dict`, torch's random states, and other values."""
    values = {name: part.state_dict() for name, part in parts.items()} | {**others, "random": _random_states()}
    partial = folder / f"{CHECKPOINT}.partial"
    torch.save(values, partial)
    partial.replace(folder / CHECKPOINT)


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read what `write_checkpoint` wrote; None where there is none, an error where it is damaged."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise MagnetError(
            path,
            expected="a checkpoint, whole",
            found=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            remedy="delete it, and give the command again; the training begins anew",
        ) from error


def go_on(parts: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Put parts and torch's random states where a checkpoint left them."""
    for name, part in parts.items():
        part.load_state_dict(values[name])
    _set_random_states(values["random"])


def _random_states() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
