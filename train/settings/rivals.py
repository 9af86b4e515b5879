"""Settings of the six rivals of the paper's Table 1, by default those they were published with, as we read the papers.

A recipe has them as `[rivals.egn]`, `--set` as `rivals.egn.lr=1e-3`. What each system is, its module in
`train.systems.rivals` says.
"""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from magnet_core.settings import Settings, refusal
from magnet_core.settings.limits import MOST_EPOCHS, MOST_LAYERS, MOST_ROWS, MOST_WIDTH
from magnet_core.settings.model import check_heads

Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
Width = Annotated[int, Field(ge=1, le=MOST_WIDTH)]
Depth = Annotated[int, Field(ge=1, le=MOST_LAYERS)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class RivalSettings(Settings):
    """What every rival's training is given; `table` is `rivals.` and its name. The last two were never published.

    clip_norm  the gradient is scaled down to this norm; 0 leaves it
    ema        share of the past that a running average of the weights keeps at each step; 0 for none
    """

    epochs: Epochs
    lr: Positive
    clip_norm: Weight = 0.0
    ema: Share = 0.0


class AttentionSettings(RivalSettings):
    """Sizes of layers of attention: features of a node, heads that share them evenly, width inside a layer."""

    width: Width
    heads: Width
    mlp: Width
    dropout: Share

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        check_heads(width=self.width, heads=self.heads)
        return self


class TransformerSettings(AttentionSettings):
    """Sizes of a transformer: layers of attention one after the other."""

    depth: Depth


class FallingRateSettings(RivalSettings):
    """A learning rate that is multiplied by `step_factor` after every `step_epochs` epochs."""

    step_epochs: Epochs = 50
    step_factor: Positive = 0.9


class STNetConfig(RivalSettings):
    """Published settings: SGD at 1e-6 with momentum 0.9, batches of 32, 50 epochs.

    So low a rate is read as that of the squared error summed over rows and genes: of its mean, a head on fixed features
    would not leave its start.
    """

    table: ClassVar[str] = "rivals.st_net"

    lr: Positive = 1e-6
    momentum: Share = 0.9
    batch_size: Rows = 32
    epochs: Epochs = 50


class EGNConfig(TransformerSettings):
    """Published settings.

    exemplars   training rows that guide each patch
    every       layers after which an exemplar block follows
    token_grid  tokens a side of a fine patch, where its encoder is trained
    pcc_weight  weight of 1 - PCC beside the MSE
    """

    table: ClassVar[str] = "rivals.egn"

    exemplars: Rows = 9
    width: Width = 1024
    depth: Depth = 8
    heads: Width = 16
    mlp: Width = 4096
    dropout: Share = 0.1
    every: Depth = 2
    token_grid: Width = 4
    pcc_weight: Weight = 0.5
    lr: Positive = 5e-4
    weight_decay: Weight = 1e-4
    batch_size: Rows = 32
    epochs: Epochs = 50


class HisToGeneConfig(TransformerSettings):
    """Published settings; `window` is ours.

    window      rows of a window at most: 24 × 24 bins
    positions   rows of the tables of x and of y embeddings
    pixel_side  pixels that the linear layer reads, a side, where it reads pixels
    """

    table: ClassVar[str] = "rivals.histogene"

    epochs: Epochs = 100
    lr: Positive = 1e-5
    window: Rows = 576
    positions: int = Field(default=64, ge=2, le=MOST_WIDTH)
    width: Width = 1024
    depth: Depth = 8
    heads: Width = 16
    mlp: Width = 2048
    dropout: Share = 0.1
    pixel_side: Width = 112


class BLEEPConfig(RivalSettings):
    """Published settings. A batch is smaller where there are fewer rows.

    temperature  τ of the loss
    neighbours   training rows whose mean is the prediction
    """

    table: ClassVar[str] = "rivals.bleep"

    width: Width = 256
    dropout: Share = 0.1
    temperature: Positive = 1.0
    neighbours: Rows = 50
    lr: Positive = 1e-3
    weight_decay: Weight = 1e-3
    batch_size: Rows = 512
    epochs: Epochs = 150


class His2STConfig(TransformerSettings, FallingRateSettings):
    """Published settings; `window` is ours.

    window        rows of a window at most: 24 × 24 bins
    positions     rows of the tables of x and of y embeddings
    neighbours    nearest rows that a SAGE layer averages, those of them within the window
    pixel_side    pixels that the convolutions read, a side
    patch         pixels, a side, that the first of them makes one
    zinb, distil  weights of the two losses beside the MSE
    views         augmented views whose mean prediction is distilled, of the 8 symmetries of the square
    """

    table: ClassVar[str] = "rivals.his2st"

    epochs: Epochs = 350
    lr: Positive = 1e-5
    window: Rows = 576
    positions: int = Field(default=64, ge=2, le=MOST_WIDTH)
    width: Width = 1024
    depth: Depth = 8
    heads: Width = 16
    mlp: Width = 1024
    dropout: Share = 0.2
    sage_layers: Depth = 4
    neighbours: Rows = 4
    lstm_layers: Depth = 2
    pixel_side: Width = 112
    patch: Width = 7
    channels: Width = 32
    mixers: Depth = 2
    kernel: Width = 5
    zinb: Weight = 0.25
    distil: Weight = 0.5
    views: int = Field(default=5, ge=1, le=8)

    @model_validator(mode="after")
    def _places_share_the_width(self) -> Self:
        if self.pixel_side < self.patch or self.width % (self.pixel_side // self.patch) ** 2:
            expected = "a multiple of (pixel_side // patch)², which is not 0"
            raise refusal("width", "pixel_side", "patch", expected=expected, found=self.width)
        return self


class TriplexConfig(AttentionSettings, FallingRateSettings):
    """Published settings, but for the epochs; `global_window` is ours.

    batch_size     fine rows of one slide
    distil         α of a view's loss, (1 - α) MSE(view, label) + α MSE(view, fusion)
    token_grid     tokens a side of a fine patch, where its encoder is trained
    global_window  spots that attend to each other at most
    """

    table: ClassVar[str] = "rivals.triplex"

    epochs: Epochs = 50
    lr: Positive = 1e-4
    batch_size: Rows = 128
    distil: float = Field(default=0.3, ge=0, le=1)
    token_grid: Width = 7
    width: Width = 512
    heads: Width = 8
    mlp: Width = 2048
    dropout: Share = 0.1
    neighbour_layers: Depth = 4
    global_layers: Depth = 5
    fusion_layers: Depth = 1
    global_window: Rows = 4096
