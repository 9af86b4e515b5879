"""The 8 symmetries of the square, on pixels and on the device.

A patch looks the same to biology from every side. One symmetry is drawn for a whole subgraph.
"""

import torch
from torch import Tensor

NUM_SYMMETRIES = 8


def turn(patches: Tensor, symmetry: int) -> Tensor:
    """Apply one of the 8 symmetries to patches (n, H, W, 3): `symmetry` % 4 quarter turns, mirrored from 4 on."""
    turned = torch.rot90(patches, symmetry % 4, dims=(1, 2))
    return turned.flip(2) if symmetry >= 4 else turned
