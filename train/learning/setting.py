"""How a learnt system is computed, beside its own hyper-parameters."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from train.settings.fit import ComputeConfig


@dataclass(frozen=True)
class Setting:
    """How a learnt system is computed, beside its own hyper-parameters.

    finetune  train the encoder of the fine patches too, from their pixels; otherwise learn from cached features
    title     what the progress bar says
    stage     which of the system's trainings this is, said after the title
    epochs    after which training ends, on a schedule laid for all; None for the system's own number
    folder    where a training keeps its state, at which it resumes after a stop; None keeps no state
    patience  epochs without a better score before training stops; 0 trains all of them
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    finetune: bool = False
    title: str = "train"
    stage: str = ""
    epochs: int | None = None
    folder: Path | None = None
    patience: int = 0
