"""A linear path beside the network: what a ridge on cached features predicts has a share in every prediction.

In: the ridge's weights and offset, which are kept with the network's. Out: its predictions of a slide's rows. A network
that has seen a few slides errs otherwise than a ridge does, so that their mean is nearer to the truth than either.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from train.data.slide import Slide
from train.data.three_levels import three_level_features

# n rows, F inputs of a row, P panel genes


class LinearPath(nn.Module):
    """Normalised expression, linear in `three_level_features` of the contexts that are named; fitted, not trained.

    share  what it has in a prediction, from 0 to 1
    """

    weight: Tensor  # (F, P)
    bias: Tensor  # (P,)

    def __init__(self, weight: Tensor, bias: Tensor, *, share: float, contexts: Collection[str]) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.share = share
        self._contexts = tuple(contexts)

    def forward(self, slide: Slide, rows: np.ndarray, views: Sequence[int]) -> Tensor:
        """Return expression (n, P) of fine rows (n,) of a slide, the mean over views."""
        inputs = [three_level_features(slide, rows, contexts=self._contexts, view=view) for view in views]
        expression: Tensor = torch.stack(inputs).mean(dim=0).to(self.weight.device) @ self.weight + self.bias
        return expression
