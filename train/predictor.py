"""The trained part of stage two in one module: the fine level's encoder, unless it is frozen, and the model on top.

In: a `Batch`. Out: `Predictions`. What is trained, averaged, saved and used for prediction is this module.
"""

from torch import Tensor, nn

from magnet_core.backbones import Encoder
from magnet_core.device import autocast
from magnet_core.model import MagNet, Predictions
from magnet_core.symmetry import turn
from train.config import ComputeConfig
from train.gradient_cache import encode_in_parts
from train.subgraph import Batch

# N fine rows, p pixels, D features


class Predictor(nn.Module):
    """From patches, or from their cached features where there is no encoder, to expression.

    The encoder runs at the wanted precision; the graph and the heads, a small part of the work, in float32.
    """

    def __init__(self, encoder: Encoder | None, model: MagNet, compute: ComputeConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.model = model
        self.compute = compute

    def forward(self, batch: Batch) -> Predictions:
        """Predict all levels of a subgraph."""
        raw = self.features(turn(batch.fine, batch.symmetry)) if self.encoder is not None else batch.fine
        return self.model(batch.slide.fine.scale(raw), batch.graph)

    def features(self, patches: Tensor) -> Tensor:
        """Raw features (N, D) float32 of patches (N, p, p, 3) uint8."""
        return encode_in_parts(self._encode, patches, micro_batch=self.compute.micro_batch)

    def _encode(self, patches: Tensor) -> Tensor:
        assert self.encoder is not None
        with autocast(self.compute.precision, patches.device):
            return self.encoder(patches, token_grid=1).pooled.float()
