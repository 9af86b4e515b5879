"""The 8 symmetries of the square, on pixels and on the device.

A patch means the same from every side. Stage one can cache the features of every view of a spot or region; stage two
draws one symmetry for a whole subgraph, so that with cached views all levels turn together.
"""

import torch
from torch import Tensor

NUM_SYMMETRIES = 8


def turn(patches: Tensor, symmetry: int) -> Tensor:
    """Apply one of the 8 symmetries to patches (n, H, W, 3): `symmetry` % 4 quarter turns, mirrored from 4 on."""
    turned = torch.rot90(patches, symmetry % 4, dims=(1, 2))
    return turned.flip(2) if symmetry >= 4 else turned
