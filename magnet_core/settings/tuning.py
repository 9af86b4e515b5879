"""Settings of how much of an encoder is trained, see `magnet_core.backbones.tuning`."""

from typing import ClassVar, Literal

from pydantic import Field

from magnet_core.settings.base import Settings
from magnet_core.settings.limits import MOST_WIDTH

Mode = Literal["full", "last", "lora", "frozen"]


class TuningConfig(Settings):
    """What of the encoder is trained.

    mode         full: every parameter; last: the last blocks and what follows them; lora: low-rank adapters on the
                 linear layers of every block and of what follows; frozen: nothing
    last_blocks  of `last`, counted as timm counts: a block of a ViT or ConvNeXt, a bottleneck of a ResNet
    lora_rank    R of `lora`
    """

    table: ClassVar[str] = "encoder"

    mode: Mode = "full"
    last_blocks: int = Field(default=2, ge=1, le=MOST_WIDTH)
    lora_rank: int = Field(default=8, ge=1, le=MOST_WIDTH)
