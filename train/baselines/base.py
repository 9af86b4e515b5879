"""What every compared system does: learn from the training side of a fold, then predict slides it has not seen.

In: a `Training`, which holds nothing of test slides. Out: normalised expression (N, P) of every fine row of a slide.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from magnet_core.expression import NormaliseConfig
from magnet_core.records import Genes
from train.config import ComputeConfig
from train.dataset import Slide
from train.labels import SlideLabels, fine_labels

# N fine rows of a slide, n rows of all training slides, P panel genes


@dataclass(frozen=True)
class Training:
    """All that a system may learn from.

    slides     the training slides of a fold
    labels     normalised expression of all their levels, by slide id
    panel      the genes that are predicted, chosen on these slides
    normalise  how raw counts became labels
    """

    slides: Sequence[Slide]
    labels: SlideLabels
    panel: Genes
    normalise: NormaliseConfig

    def fine(self, slide: Slide) -> np.ndarray:
        """Labels (N, P) of a slide's fine rows."""
        return fine_labels(slide, self.labels[slide.slide_id])

    def all_fine(self) -> np.ndarray:
        """Labels (n, P) of the fine rows of all slides, in the order of `slides`."""
        return np.concatenate([self.fine(slide) for slide in self.slides])

    def patients(self) -> np.ndarray:
        """Patient of the fine rows of all slides (n,), in their order; a slide is its own where none is named."""
        return np.concatenate([[slide.patient or slide.slide_id] * len(slide.fine) for slide in self.slides])

    def fine_by_slide(self) -> dict[str, np.ndarray]:
        """Labels (N, P) of the fine rows of each slide, by slide id."""
        return {slide.slide_id: self.fine(slide) for slide in self.slides}

    def mean_fine(self) -> np.ndarray:
        """Mean label of each gene over the fine rows of all slides, (P,)."""
        return self.all_fine().mean(axis=0)


class System(Protocol):
    """One system. `fit` is called once; `predict` never sees a label."""

    def fit(self, training: Training) -> None:
        """Learn from the training side of a fold."""

    def predict(self, slide: Slide) -> np.ndarray:
        """Return normalised expression (N, P) float32 of every fine row."""


@dataclass(frozen=True)
class Setting:
    """How a learnt system is computed, beside its own hyper-parameters.

    finetune  train the encoder of the fine patches too, from their pixels; otherwise cached features are learnt from
    title     what the progress bar says
    folder    where a training that is stopped leaves its state, and goes on from; None keeps none
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    finetune: bool = False
    title: str = "train"
    folder: Path | None = None
