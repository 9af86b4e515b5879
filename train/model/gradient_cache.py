"""Encoding a subgraph of any size in the memory of one micro-batch, with the gradients of encoding it at once.

The micro-batches are encoded without keeping what backward needs; graph and loss run on the features of all; on the way
back each micro-batch is encoded again, with its gradient, and let go. Costs one more forward pass. Random states and
autocast are replayed, so that dropout falls on the same values in both passes (`torch.utils.checkpoint`).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# N patches of a subgraph, D features


def encode_in_parts(encode: Callable[[Tensor], Tensor], patches: Tensor, *, micro_batch: int) -> Tensor:
    """Features (N, D) of N patches, `micro_batch` at a time; 0, or one that holds them all, encodes them at once."""
    if micro_batch == 0 or len(patches) <= micro_batch:
        return encode(patches)
    parts = patches.split(micro_batch)
    if not torch.is_grad_enabled():
        return torch.cat([encode(part) for part in parts])
    return torch.cat([checkpoint(encode, part, use_reentrant=False) for part in parts])
