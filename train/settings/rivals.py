"""Settings of the six rivals of the paper's Table 1, by default those they were published with, as we read the papers.

A recipe has them as `[rivals.egn]`, `--set` as `rivals.egn.lr=1e-3`. What each system is, its module in
`train.systems.rivals` says.
"""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from magnet_core.settings import Settings, refusal
from magnet_core.settings.model import check_heads


class RivalSettings(Settings):
    """What every rival's training can be given beside what was published; `table` is `rivals.` and its name.

    clip_norm  the gradient is scaled down to this norm; 0 leaves it
    ema        share of the past that a running average of the weights keeps at each step; 0 for none
    """

    clip_norm: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)


class STNetConfig(RivalSettings):
    """Published settings: SGD at 1e-6 with momentum 0.9, batches of 32, 50 epochs.

    So low a rate is read as that of the squared error summed over rows and genes: of its mean, a head on fixed features
    would not leave its start.
    """

    table: ClassVar[str] = "rivals.st_net"

    lr: float = Field(default=1e-6, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    batch_size: int = Field(default=32, ge=1)
    epochs: int = Field(default=50, ge=1)


class EGNConfig(RivalSettings):
    """Published settings.

    exemplars   training rows that guide each patch
    mlp         width inside a transformer layer
    every       layers after which an exemplar block follows
    token_grid  tokens a side of a fine patch, where its encoder is trained
    pcc_weight  weight of 1 - PCC beside the MSE
    """

    table: ClassVar[str] = "rivals.egn"

    exemplars: int = Field(default=9, ge=1)
    width: int = Field(default=1024, ge=1)
    depth: int = Field(default=8, ge=1)
    heads: int = Field(default=16, ge=1)
    mlp: int = Field(default=4096, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    every: int = Field(default=2, ge=1)
    token_grid: int = Field(default=4, ge=1)
    pcc_weight: float = Field(default=0.5, ge=0)
    lr: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    batch_size: int = Field(default=32, ge=1)
    epochs: int = Field(default=50, ge=1)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        check_heads(width=self.width, heads=self.heads)
        return self


class HisToGeneConfig(RivalSettings):
    """Published settings; `window` is ours.

    window      rows of a window at most: 24 × 24 bins
    positions   rows of the tables of x and of y embeddings
    mlp         width inside a layer
    pixel_side  pixels that the linear layer reads, a side, where it reads pixels
    """

    table: ClassVar[str] = "rivals.histogene"

    epochs: int = Field(default=100, ge=1)
    lr: float = Field(default=1e-5, gt=0)
    window: int = Field(default=576, ge=1)
    positions: int = Field(default=64, ge=2)
    width: int = Field(default=1024, ge=1)
    depth: int = Field(default=8, ge=1)
    heads: int = Field(default=16, ge=1)
    mlp: int = Field(default=2048, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    pixel_side: int = Field(default=112, ge=1)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        check_heads(width=self.width, heads=self.heads)
        return self


class BLEEPConfig(RivalSettings):
    """Published settings. A batch is smaller where there are fewer rows.

    temperature  τ of the loss
    neighbours   training rows whose mean is the prediction
    """

    table: ClassVar[str] = "rivals.bleep"

    width: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    temperature: float = Field(default=1.0, gt=0)
    neighbours: int = Field(default=50, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    batch_size: int = Field(default=512, ge=1)
    epochs: int = Field(default=150, ge=1)


class His2STConfig(RivalSettings):
    """Published settings; `window` is ours.

    step_epochs   the learning rate is multiplied by `step_factor` after so many epochs, again and again
    window        rows of a window at most: 24 × 24 bins
    positions     rows of the tables of x and of y embeddings
    mlp           width inside a transformer layer
    neighbours    nearest rows that a SAGE layer averages, those of them within the window
    pixel_side    pixels that the convolutions read, a side
    patch         pixels, a side, that the first of them makes one
    zinb, distil  weights of the two losses beside the MSE
    views         augmented views whose mean prediction is distilled, of the 8 symmetries of the square
    """

    table: ClassVar[str] = "rivals.his2st"

    epochs: int = Field(default=350, ge=1)
    lr: float = Field(default=1e-5, gt=0)
    step_epochs: int = Field(default=50, ge=1)
    step_factor: float = Field(default=0.9, gt=0)
    window: int = Field(default=576, ge=1)
    positions: int = Field(default=64, ge=2)
    width: int = Field(default=1024, ge=1)
    depth: int = Field(default=8, ge=1)
    heads: int = Field(default=16, ge=1)
    mlp: int = Field(default=1024, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    sage_layers: int = Field(default=4, ge=1)
    neighbours: int = Field(default=4, ge=1)
    lstm_layers: int = Field(default=2, ge=1)
    pixel_side: int = Field(default=112, ge=1)
    patch: int = Field(default=7, ge=1)
    channels: int = Field(default=32, ge=1)
    mixers: int = Field(default=2, ge=1)
    kernel: int = Field(default=5, ge=1)
    zinb: float = Field(default=0.25, ge=0)
    distil: float = Field(default=0.5, ge=0)
    views: int = Field(default=5, ge=1, le=8)

    @model_validator(mode="after")
    def _heads_and_places_share_the_width(self) -> Self:
        check_heads(width=self.width, heads=self.heads)
        if self.pixel_side < self.patch or self.width % (self.pixel_side // self.patch) ** 2:
            expected = "a multiple of (pixel_side // patch)², which is not 0"
            raise refusal("width", "pixel_side", "patch", expected=expected, found=self.width)
        return self


class TriplexConfig(RivalSettings):
    """Published settings, but for the epochs; `global_window` is ours.

    batch_size     fine rows of one slide
    step_epochs    the learning rate is multiplied by `step_factor` after so many epochs, again and again
    distil         α of a view's loss, (1 - α) MSE(view, label) + α MSE(view, fusion)
    token_grid     tokens a side of a fine patch, where its encoder is trained
    mlp            width inside a layer
    global_window  spots that attend to each other at most
    """

    table: ClassVar[str] = "rivals.triplex"

    epochs: int = Field(default=50, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    batch_size: int = Field(default=128, ge=1)
    step_epochs: int = Field(default=50, ge=1)
    step_factor: float = Field(default=0.9, gt=0)
    distil: float = Field(default=0.3, ge=0, le=1)
    token_grid: int = Field(default=7, ge=1)
    width: int = Field(default=512, ge=1)
    heads: int = Field(default=8, ge=1)
    mlp: int = Field(default=2048, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    neighbour_layers: int = Field(default=4, ge=1)
    global_layers: int = Field(default=5, ge=1)
    fusion_layers: int = Field(default=1, ge=1)
    global_window: int = Field(default=4096, ge=1)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        check_heads(width=self.width, heads=self.heads)
        return self
