"""Settings of how raw counts become expression, see `magnet_core.expression`."""

from typing import ClassVar, Literal

from pydantic import Field

from magnet_core.settings.base import Settings


class NormaliseConfig(Settings):
    """How raw counts become expression.

    library "panel": a row's total is taken over the panel; "all": over all genes; "none": counts are not scaled
    scale   what a row's total is scaled to
    log     log(1 + value) afterwards
    """

    table: ClassVar[str] = "data.normalise"

    library: Literal["panel", "all", "none"] = "panel"
    scale: float = Field(default=1e4, gt=0)
    log: bool = True
