"""Fusion of a fine node with what it found on the context levels: paper, section 2.1, "concatenating the features".

In: the fine nodes (N, D) and one attended feature (N, D) per context level. Out: the multi-level feature F (N, D).
Both ways keep the node's own feature on a residual path, so that no context can hide it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from magnet_core.settings.model import Fusion

# N fine nodes, D model width, C context levels


class ConcatFusion(nn.Module):
    """f_b + W [f_b ; f'_s ; f'_r]: the paper's concatenation, brought back to the model's width."""

    def __init__(self, width: int, num_contexts: int) -> None:
        super().__init__()
        self.mix = nn.Linear((1 + num_contexts) * width, width)

    def forward(self, fine: Tensor, attended: Sequence[Tensor]) -> Tensor:
        """Fuse `fine` (N, D) with C tensors (N, D), in the order of the levels; returns (N, D)."""
        mixed: Tensor = self.mix(torch.cat([fine, *attended], dim=1))  # (N, (1+C)·D) -> (N, D)
        return fine + mixed


class SumFusion(nn.Module):
    """f_b + f'_s + f'_r: no parameters of its own, the value projections of the attention do the mixing."""

    def forward(self, fine: Tensor, attended: Sequence[Tensor]) -> Tensor:
        """Fuse `fine` (N, D) with C tensors (N, D); returns (N, D)."""
        return fine + torch.stack(list(attended)).sum(dim=0)  # (C, N, D) -> (N, D)


FUSIONS: dict[Fusion, Callable[[int, int], ConcatFusion | SumFusion]] = {  # of the width and the number of contexts
    "concat": ConcatFusion,
    "sum": lambda _width, _num_contexts: SumFusion(),
}
