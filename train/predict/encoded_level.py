"""The fine level of a slide whose features a fine-tuned encoder has made already.

In: a file of those features, and one of the frozen encoder's, by which they are brought to one scale, as in training.
Out: a level like any other.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from cache.reader import ArrayFile
from magnet_core.sampled_rows import scale_rows
from train.data.slide import FeatureScale, LevelData
from train.settings.fit import DataConfig


class EncodedLevel(LevelData):
    """Fine features are those of `features`, which hold all rows; `frozen` holds all of them, or `scale_rows` alone."""

    def __init__(
        self, name: str, geometry: ArrayFile, features: ArrayFile, *, config: DataConfig, frozen: ArrayFile
    ) -> None:
        super().__init__(name, geometry, features, config=config)
        self._standardised = config.standardise
        self._of_frozen = LevelData(name, geometry, frozen, config=config)
        sampled = frozen.header.get("sampled") == name
        self._rows = np.arange(len(scale_rows(len(self)))) if sampled else scale_rows(len(self))

    @cached_property
    def fine_scale(self) -> Callable[[Tensor], Tensor]:
        """What is applied to fine features (..., F): the scale of the frozen encoder's, which it was learnt with."""
        if not self._standardised:
            return Tensor.float
        with torch.inference_mode(False):
            return FeatureScale.of(self._of_frozen.features("fine", self._rows))
