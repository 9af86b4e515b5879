"""How a learnt system is computed, beside its own hyper-parameters."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from train.settings.fit import ComputeConfig


@dataclass(frozen=True)
class Setting:
    """How a learnt system is computed, beside its own hyper-parameters.

    finetune  train the encoder of the fine patches too, from their pixels; otherwise cached features are learnt from
    title     what the progress bar says
    folder    where a training that is stopped leaves its state, and goes on from; None keeps none
    patience  epochs without a better score before training stops; 0 trains all of them
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    finetune: bool = False
    title: str = "train"
    folder: Path | None = None
    patience: int = 0
