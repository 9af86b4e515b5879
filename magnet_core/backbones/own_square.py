"""What a row's own square shows: mean and spread of an encoder's maps over the square that the row stands for.

In: the maps of patches, and how large the square in their middle is. Out: for each map the mean and the standard
deviation over the square, side by side. A bin of 8 µm is cut with what surrounds it, 28 µm a side: nine tenths of the
mean over its patch are neighbours, and in a deep map each cell sees most of the patch. Maps of earlier stages are finer
and see less; how much they vary within the square tells an edge or a nucleus from an even ground.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from magnet_core.errors import MagnetError

# B patches, C channels of a map (h, w)

MOST_MAPS = 3
_LEAST_VARIANCE = 1e-6  # below it a spread has no gradient that could be followed
LAST = -1  # in the place of a stage: the model's last map, after its last norm


@dataclass(frozen=True)
class OwnSquare:
    """The square in the middle of a patch: its side as a share of the patch's, and how many maps are kept of it."""

    share: float
    maps: int

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 1 <= self.maps <= MOST_MAPS:
            raise MagnetError(
                "own square",
                expected=f"a share within 0 … 1 of the patch's side, of 1 to {MOST_MAPS} maps",
                found=f"{self.share} of {self.maps}",
                remedy="make patches as large as the bins that they show, or larger",
            )


def stages_of(model: Any, square: OwnSquare) -> list[int]:
    """Return the stages of a timm model whose maps are kept, `LAST` among them.

    Of stages that halve the map one after the other, as in a ResNet, the finest: of strides 4, 8 and 16, whose cells
    are 1, 2 and 4 µm wide. Of blocks that all work on one map, as in a ViT: the last, then those at a half and a
    quarter of the depth. Of a model that names no stages, the last.
    """
    strides = [stage["reduction"] for stage in _stages(model)]
    if len(strides) < 2 or not hasattr(model, "forward_intermediates"):
        return [LAST]
    if strides[-2] < strides[-1]:
        before = range(max(len(strides) - 1 - MOST_MAPS, 0), len(strides) - 1)
        return [*before, LAST][: square.maps]
    return [LAST, len(strides) // 2 - 1, len(strides) // 4 - 1][: min(square.maps, len(strides))]


def channels_of(model: Any, stages: list[int]) -> list[int]:
    """Return the channels C of stages' maps."""
    return [int(model.num_features if stage == LAST else _stages(model)[stage]["num_chs"]) for stage in stages]


def mean_and_spread(feature_map: Tensor, square: OwnSquare) -> Tensor:
    """Return mean and standard deviation of maps (B, C, h, w) over the square, (B, 2·C) float32.

    A cell counts by the area that it shares with the square.
    """
    (rows, row_shares), (columns, column_shares) = (
        shared_cells(cells, square.share, device=feature_map.device) for cells in feature_map.shape[2:]
    )
    inside = feature_map[:, :, rows, columns].float()
    areas = row_shares[:, None] * column_shares
    with torch.autocast(feature_map.device.type, enabled=False):
        mean = (inside * areas).sum(dim=(2, 3))
        variance = ((inside - mean[:, :, None, None]).square() * areas).sum(dim=(2, 3))
    return torch.cat([mean, (variance + _LEAST_VARIANCE).sqrt()], dim=1)


def shared_cells(cells: int, share: float, *, device: torch.device) -> tuple[slice, Tensor]:
    """Return which of so many cells along a side the square touches, and what part of it lies in each; the sum is 1."""
    start, end = (0.5 - share / 2) * cells, (0.5 + share / 2) * cells
    touched = slice(math.floor(start), min(math.ceil(end), cells))
    edges = torch.arange(touched.start, touched.stop + 1, dtype=torch.float64)
    shared = (edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)).clamp(min=0)
    return touched, (shared / shared.sum()).to(device, torch.float32)


def _stages(model: Any) -> list[dict[str, Any]]:
    """What timm says of a model's stages; nothing of some models."""
    stages = getattr(model, "feature_info", [])
    return list(stages if isinstance(stages, list) else stages.info)
