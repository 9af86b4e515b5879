"""Where a training stands: weights, running average, optimiser, schedule, and how far it is.

In: the parts of a training, and a folder for its checkpoint. Out: the same parts, as they were at the last checkpoint.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from magnet_core.checksums import check_files, file_checksum
from magnet_core.errors import MagnetError
from magnet_core.files import replacing
from magnet_core.ranks import ranks
from magnet_core.settings import differing
from magnet_core.tensor_files import read_safetensors
from train.learning.checkpoint import (
    CHECKPOINT,
    FORMER_BEST,
    best_path,
    forget_best,
    go_on,
    read_checkpoint,
    write_checkpoint,
)
from train.settings.fit import OUTPUT_NEUTRAL, as_recorded


@dataclass
class Progress:
    """How far a training is: the epochs done, the steps done in the next epoch, and the losses and scores so far.

    losses       of the steps of the epoch under way
    history      mean loss of each whole epoch
    scores       on what is held out, of each whole epoch
    best_epoch   the epoch (from 1) of the best score; 0 before there is one
    best_weights checksum of the file of its weights; empty before there is one, and in checkpoints of before
    """

    epoch: int = 0
    step_of_epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: str = ""

    @property
    def kept_epoch(self) -> int:
        """The epoch (from 1) whose weights are kept."""
        return self.best_epoch or self.epoch

    @property
    def best_score(self) -> float:
        """The best score so far, minus infinity before there is one."""
        return self.scores[self.best_epoch - 1] if self.best_epoch else float("-inf")

    def state_dict(self) -> dict[str, Any]:
        """Return the position as plain values."""
        return asdict(self)

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Set the position from plain values."""
        vars(self).update(vars(Progress(**values)))

    def is_stale(self, patience: int) -> bool:
        """Whether the last `patience` epochs brought no better score; with a patience of 0 this is never so."""
        return 0 < patience <= self.epoch - self.best_epoch and bool(self.scores)


@dataclass
class TrainingState:
    """All that changes while training.

    module   what is trained
    average  the running average of its weights, where there is one
    others   further parts that have a `state_dict`: the optimiser, the schedule, the draws of batches
    """

    module: nn.Module
    average: AveragedModel | None
    others: Mapping[str, Any]
    progress: Progress = field(default_factory=Progress)

    def save(self, folder: Path, *, settings: Mapping[str, Any]) -> None:
        """Write the checkpoint, with the settings of the training; of several processes, the first one does."""
        if not ranks().is_first:
            return
        write_checkpoint(folder, self._parts(), {"settings": dict(settings)}, device=self._device)
        if self.progress.best_weights:
            forget_best(folder, but=self.progress.best_epoch)

    def resume(self, folder: Path, *, settings: Mapping[str, Any]) -> bool:
        """Resume at the checkpoint, if there is one; a checkpoint of other settings is an error."""
        values = ranks().agree(read_checkpoint(folder))
        if values is None:
            return False
        before, now = as_recorded(values.get("settings", {})), as_recorded(settings)
        if different := differing(before, now, neutral=OUTPUT_NEUTRAL):
            raise MagnetError(
                folder / CHECKPOINT,
                expected="an unfinished training of these settings",
                found=f"one that differs in {', '.join(different)}",
                remedy="give another --name, or delete it",
            )
        go_on(folder, self._parts(), values, device=self._device)
        return True

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Give the module the weights that are validated and kept: those of the running average, if there is one."""
        if self.average is None:
            yield
            return
        trained = [parameter.detach().clone() for parameter in self.module.parameters()]
        self._put(list(self.average.module.parameters()))
        try:
            yield
        finally:
            self._put(trained)

    def keep_best(self, folder: Path) -> None:
        """Write the module's weights as those of the best epoch, which is the last whole one."""
        done, path, checksum = self.progress, best_path(folder, self.progress.epoch), ""
        if ranks().is_first:
            weights = {name: value.detach().contiguous() for name, value in self.module.state_dict().items()}
            with replacing(path) as partial:
                partial.write_bytes(save(weights))
            checksum = file_checksum(path)
        done.best_epoch, done.best_weights = done.epoch, ranks().agree(checksum)

    def finish(self, folder: Path) -> None:
        """Leave the best weights in the module, or the running average, or the last ones."""
        if ranks().is_first:
            self._restore_kept(folder)
        ranks().copy_first(list(self.module.parameters()))

    def _restore_kept(self, folder: Path) -> None:
        done = self.progress
        if done.best_epoch:
            path = best_path(folder, done.best_epoch) if done.best_weights else folder / FORMER_BEST
            recorded = {path.name: done.best_weights} if done.best_weights else None
            remedy = f"delete {folder / CHECKPOINT}, and give the command again; the training begins anew"
            check_files(folder, [path.name], recorded, remedy=remedy)
            self.module.load_state_dict(read_safetensors(path, expected="the weights of that epoch", remedy=remedy))
        elif self.average is not None:
            self._put(list(self.average.module.parameters()))

    @torch.no_grad()
    def _put(self, weights: list[Tensor] | list[nn.Parameter]) -> None:
        for parameter, value in zip(self.module.parameters(), weights, strict=True):
            parameter.copy_(value)

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _parts(self) -> dict[str, Any]:
        average: dict[str, nn.Module] = {} if self.average is None else {"average": self.average}
        return {"module": self.module, "progress": self.progress, **self.others, **average}
