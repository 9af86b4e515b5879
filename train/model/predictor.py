"""The trained part of stage two in one module: the fine level's encoder, unless it is frozen, and the model on top.

In: a `Batch`. Out: `Predictions`. What is trained, averaged, saved and used for prediction is this module.
"""

from functools import partial

from torch import Tensor, nn

from magnet_core.backbones.encoder import Encoder
from magnet_core.backbones.own_square import OwnSquare
from magnet_core.device import at_least_float32, autocast
from magnet_core.model import MagNet, Predictions
from magnet_core.ranks import ranks
from magnet_core.symmetry import turn
from train.data.subgraph import Batch
from train.model.gradient_cache import encode_in_parts
from train.model.linear_path import LinearPath
from train.settings.fit import ComputeConfig

# N fine rows, p pixels, F fine features


class Predictor(nn.Module):
    """From patches, or from their cached features where there is no encoder, to expression.

    The encoder runs at the wanted precision; the graph and the heads, a small part of the work, in float32. `own` is
    the square of a row whose features stand beside those of its whole patch. `linear`, which has no part in training,
    has a share in predictions of a whole slide.
    """

    def __init__(
        self,
        encoder: Encoder | None,
        model: MagNet,
        compute: ComputeConfig,
        *,
        own: OwnSquare | None = None,
        linear: LinearPath | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.linear = linear
        self.own = own
        self.model = model
        self.compute = compute

    def forward(self, batch: Batch) -> Predictions:
        """Predict all levels of a subgraph, of whose patches each process of one training encodes its share."""
        raw = batch.fine
        if self.encoder is not None:
            raw = ranks().gather(self.features(batch.fine, symmetry=batch.symmetry), len(batch))
        result: Predictions = self.model(batch.slide.fine.fine_scale(raw), batch.graph)
        return result

    def features(self, patches: Tensor, *, symmetry: int = 0) -> Tensor:
        """Fine features (N, F) of patches (N, p, p, 3) uint8, turned by one of the square's symmetries.

        They are float32, whatever the encoder's precision, or float64 where the encoder is.
        """
        return encode_in_parts(partial(self._encode, symmetry), patches, micro_batch=self.compute.micro_batch)

    def _encode(self, symmetry: int, patches: Tensor) -> Tensor:
        assert self.encoder is not None
        with autocast(self.compute.precision, patches.device):
            fine: Tensor = self.encoder(turn(patches, symmetry), token_grid=1, own=self.own).fine
        return at_least_float32(fine)
