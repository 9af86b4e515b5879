"""Settings of the model (paper, sections 2.1 and 2.2), see `magnet_core.model`."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from magnet_core.settings.base import Settings, refusal
from magnet_core.settings.limits import MOST_LAYERS, MOST_WIDTH

Attend = Literal["tokens", "graph"]
Fusion = Literal["concat", "sum"]


def check_heads(*, width: int, heads: int) -> None:
    """Refuse a width that the heads do not share evenly."""
    if width % heads:
        raise refusal("width", "heads", expected=f"a multiple of heads={heads}", found=width)


class ModelConfig(Settings):
    """What the paper fixes is the structure; it states none of the sizes, so the defaults are ours.

    `use_gat=False` and `use_multires=False` are the ablations of the paper's Tables 2 and 3: what they switch off is
    not built, so that it costs neither parameters nor time.

    width               D. Of the order of the panel (250 genes), 64 per head; a head of 2,048 would only overfit
    heads               K, of the GAT and of the Transformer; D/K features each, concatenated back to D
    rounds              L. Two rings of 8 neighbours; every further round widens the halo that evaluation must load
    transformer_layers  the paper: "a Transformer layer"
    dropout             on GAT attention weights and inside the Transformer
    attend              "graph" makes a prediction depend on the context nodes that share its batch
    fusion              the paper's is "concat"
    """

    table: ClassVar[str] = "model"

    width: int = Field(default=256, ge=1, le=MOST_WIDTH)
    heads: int = Field(default=4, ge=1, le=MOST_WIDTH)
    rounds: int = Field(default=2, ge=1, le=MOST_LAYERS)
    transformer_layers: int = Field(default=1, ge=1, le=MOST_LAYERS)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    attend: Attend = "tokens"
    fusion: Fusion = "concat"
    use_gat: bool = True
    use_multires: bool = True

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        check_heads(width=self.width, heads=self.heads)
        return self

    @property
    def reach(self) -> int:
        """Hops over which nodes change each other's predictions: a halo of so many makes a prediction exact.

        It holds for every level, the fine nodes of the halo with their paired contexts; not for `attend="graph"`.
        """
        return self.rounds if self.use_gat else 0
