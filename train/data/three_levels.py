"""What a fine row's surroundings look like, as one row of numbers: its own features and those of the tiles around it.

In: a slide, rows. Out: inputs of a linear model, each level brought to one scale.
"""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from magnet_core.grid import Around
from train.data.slide import Slide

# N fine rows of a slide, n of them, M rows of a context level, F inputs of a row, D features


def three_level_features(
    slide: Slide, rows: np.ndarray | None = None, *, contexts: Collection[str] | None = None, view: int = 0
) -> Tensor:
    """Fine features of fine rows (n,) and pooled ones of what they see of context levels, (n, F); all by default."""
    rows = np.arange(len(slide.fine)) if rows is None else rows
    parts = [slide.fine.fine_scale(slide.fine.features("fine", rows, view=view))]
    for name, level in slide.contexts.items():
        if contexts is not None and name not in contexts:
            continue
        around = slide.around[name].of(rows)
        used, seen = np.unique(around.rows, return_inverse=True)
        pooled = level.scale(level.features("pooled", used, view=view))
        parts.append(sum_of_seen(pooled, Around(seen.reshape(around.rows.shape), around.weights)))
    return torch.cat(parts, dim=1)


def sum_of_seen(features: Tensor, around: Around) -> Tensor:
    """Sum features (M, D) of a level over the rows that each point sees, by their weights, (N, D)."""
    total = torch.zeros(len(around.rows), features.shape[1])
    for rows, weights in zip(around.rows.T, around.weights.T, strict=True):
        total += features[torch.from_numpy(rows)] * torch.from_numpy(weights)[:, None]
    return total
