"""Where cached features are read from while training: copied to the device once, or mapped from the store.

In: the slides of a run and what its model reads of them. Out: the slides' levels hold their features on the device if
they fit, and a line that says so.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from magnet_core.console import human_bytes
from train.data.slide import FeatureKind, Slide
from train.model.predictor import Predictor

SHARE_OF_FREE = 0.5  # of the device's memory: the rest is for activations

Residency = Literal["auto", "always", "never"]


def place_features(predictor: Predictor, slides: Sequence[Slide], resident: Residency) -> str:
    """Hold the features that a predictor reads on its device, or leave them in the store; say which.

    It reads pooled features and tokens of its contexts and, without an encoder, the fine level's features. On a CPU, a
    mapped feature is in memory as soon as it has been read once.
    """
    device = next(predictor.parameters()).device
    names = predictor.model.context_dims
    of_contexts: tuple[FeatureKind, ...] = ("pooled", "tokens")
    arrays = [(slide.contexts[name], kind) for slide in slides for name in names for kind in of_contexts]
    if predictor.encoder is None:
        arrays += [(slide.fine, kind) for slide in slides for kind in slide.fine.fine_kinds]
    size = sum(level.num_bytes(kind) for level, kind in arrays)
    if resident == "never" or (resident == "auto" and size > SHARE_OF_FREE * _free_bytes(device)):
        return f"cached features: {human_bytes(size)}, mapped from the store"
    for level, kind in arrays:
        level.hold(kind, device)
    return f"cached features: {human_bytes(size)}, held on {device}"


def _free_bytes(device: torch.device) -> int:
    """Free memory of a GPU; none of a CPU's, where mapping serves as well."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
