"""What a row's own square shows: an encoder's maps averaged over the square that the row stands for, at several scales.

In: the maps of patches, and how large the square in their middle is. Out: one mean over the square for each map, side
by side. A bin of 8 µm is cut with what surrounds it, 28 µm a side: nine tenths of the mean over its patch are
neighbours, and in a deep map each cell sees most of the patch. Maps of earlier stages are finer and see less.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from magnet_core.errors import MagnetError

# B patches, C channels of a map (h, w), O numbers of all maps' means

MOST_SCALES = 3


@dataclass(frozen=True)
class OwnSquare:
    """The square in the middle of a patch: its side as a share of the patch's, and how many scales are kept of it."""

    share: float
    scales: int

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 1 <= self.scales <= MOST_SCALES:
            raise MagnetError(
                "own square",
                expected=f"a share within 0 … 1 of the patch's side, at 1 to {MOST_SCALES} scales",
                found=f"{self.share} at {self.scales}",
                remedy="make patches as large as the bins that they show, or larger",
            )


def earlier_stages(model: Any) -> list[int]:
    """Return the stages of a timm model whose maps are averaged, the finest first; there are models that name none.

    Of stages that halve the map one after the other, as in a ResNet, the three before the last, whose cells are 1, 2
    and 4 µm wide; of blocks that all work on one map, as in a ViT, those at a third and two thirds of the depth: the
    third scale is the last map, which is not among them.
    """
    strides = [stage["reduction"] for stage in _stages(model)]
    last = len(strides) - 1
    if last < 1 or not hasattr(model, "forward_intermediates"):
        return []
    if strides[-2] < strides[-1]:
        return list(range(max(last - MOST_SCALES, 0), last))
    return [stage for stage in (len(strides) // 3 - 1, 2 * len(strides) // 3 - 1) if stage >= 0]


def channels_of(model: Any, stages: list[int]) -> list[int]:
    """Return the channels of stages' maps."""
    return [int(_stages(model)[stage]["num_chs"]) for stage in stages]


def average_over(feature_map: Tensor, square: OwnSquare) -> Tensor:
    """Return the mean of maps (B, C, h, w) over the square, (B, C); a cell counts by the area it shares with it."""
    rows, columns = (
        shared_lengths(cells, square.share, like=feature_map).to(feature_map.dtype) for cells in feature_map.shape[2:]
    )
    return torch.einsum("h,bchw,w->bc", rows, feature_map, columns)


def shared_lengths(cells: int, share: float, *, like: Tensor) -> Tensor:
    """Return the part of the square's side that lies in each of so many cells along a side, (cells,); the sum is 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64, device=like.device) / cells
    start, end = 0.5 - share / 2, 0.5 + share / 2
    shared = edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)
    return shared.clamp(min=0) / share


def _stages(model: Any) -> list[dict[str, Any]]:
    """What timm says of a model's stages; nothing of some models."""
    stages = getattr(model, "feature_info", [])
    return list(stages if isinstance(stages, list) else stages.info)
