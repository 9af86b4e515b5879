"""The options of the model (paper, sections 2.1 and 2.2).

In: the values of a recipe. Out: a validated, frozen `ModelConfig`.
"""

from dataclasses import dataclass

from magnet_core.errors import MagnetError
from magnet_core.model.cross_attention import ATTENTIONS, Attend
from magnet_core.model.fusion import FUSIONS, Fusion
from magnet_core.registry import look_up


@dataclass(frozen=True)
class ModelConfig:
    """What the paper fixes is the structure; it states none of the sizes, so the defaults are ours.

    `use_gat=False` and `use_multires=False` are the ablations of the paper's Tables 2 and 3: what they switch off is
    not built, so that it costs neither parameters nor time.
    """

    width: int = 256  # D. Of the order of the panel (250 genes), 64 per head; a head of 2,048 would only overfit
    heads: int = 4  # K, of the GAT and of the Transformer; D/K features each, concatenated back to D
    rounds: int = 2  # L. Two rings of 8 neighbours; every further round widens the halo that evaluation must load
    transformer_layers: int = 1  # the paper: "a Transformer layer"
    dropout: float = 0.1  # on GAT attention weights and inside the Transformer
    attend: Attend = "tokens"  # "graph" makes a prediction depend on the context nodes that share its batch
    fusion: Fusion = "concat"  # the paper's
    use_gat: bool = True
    use_multires: bool = True

    def __post_init__(self) -> None:
        for name in ("width", "heads", "rounds", "transformer_layers"):
            value = getattr(self, name)
            if value < 1:
                raise MagnetError(
                    f"model.{name}",
                    expected="1 or more",
                    found=f"{value}",
                    remedy="raise it; use_gat=false does without the graph",
                )
        if self.width % self.heads:
            raise MagnetError(
                "model.width",
                expected=f"a multiple of heads={self.heads}",
                found=f"{self.width}",
                remedy="change width or heads",
            )
        if not 0.0 <= self.dropout < 1.0:
            raise MagnetError("model.dropout", expected="0 <= dropout < 1", found=f"{self.dropout}", remedy="try 0.1")
        look_up(ATTENTIONS, self.attend, where="model.attend")
        look_up(FUSIONS, self.fusion, where="model.fusion")

    @property
    def reach(self) -> int:
        """Hops over which nodes change each other's predictions: a halo of so many makes a prediction exact.

        It holds for every level, the fine nodes of the halo with their paired contexts; not for `attend="graph"`.
        """
        return self.rounds if self.use_gat else 0
