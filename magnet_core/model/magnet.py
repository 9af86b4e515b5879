"""MagNet: paper, section 2 and figure 2.

In: raw features of N fine nodes, as the fine-tuned encoder gives them, and the `Subgraph` around them with the cached
raw features of the context levels. Out: `Predictions`, normalised log expression for the fine level and each context.
The fine encoder is not part of this module: features may come from it or from the store, and the same code runs.
"""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from magnet_core.errors import MagnetError
from magnet_core.model.batch import Predictions, Subgraph
from magnet_core.model.cross_attention import ATTENTIONS
from magnet_core.model.fusion import FUSIONS
from magnet_core.model.gat_transformer import GatTransformer
from magnet_core.model.heads import ExpressionHead, FeatureProjection
from magnet_core.settings.model import ModelConfig

# N fine nodes, M context nodes, T tokens of a patch, C raw feature width, D model width, G genes, E edges


class LevelDecoder(nn.Module):
    """The GAT-Transformer and the head of one level; without `use_gat` the head alone."""

    def __init__(self, config: ModelConfig, num_genes: int) -> None:
        super().__init__()
        self.graph = GatTransformer(config) if config.use_gat else None
        self.head = ExpressionHead(config.width, num_genes)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Return expression (N, G) of nodes (N, D) with edges (2, E) among them."""
        expression: Tensor = self.head(nodes if self.graph is None else self.graph(nodes, edges))
        return expression


class MagNet(nn.Module):
    """Multi-level attention graph network.

    `fine_dim` and `context_dims` are raw feature widths; the names in `context_dims` are those of the contexts in the
    subgraphs and in the predictions, and their order is the order of fusion. Without `use_multires` the contexts are
    neither built nor read nor predicted.
    """

    def __init__(self, config: ModelConfig, *, fine_dim: int, context_dims: Mapping[str, int], num_genes: int) -> None:
        super().__init__()
        if config.use_multires and not context_dims:
            raise MagnetError(
                "model", expected="context levels", found="none", remedy="name some, or set use_multires=false"
            )
        self.config = config
        self.fine_dim = fine_dim
        self.context_dims = dict(context_dims) if config.use_multires else {}
        self.num_genes = num_genes

        self.project_fine = FeatureProjection(fine_dim, config.width)
        self.decode_fine = LevelDecoder(config, num_genes)
        attention = ATTENTIONS[config.attend]
        self.attend = nn.ModuleDict({n: attention(c, config.width) for n, c in self.context_dims.items()})
        self.project_context = nn.ModuleDict(
            {n: FeatureProjection(c, config.width) for n, c in self.context_dims.items()}
        )
        self.decode_context = nn.ModuleDict({n: LevelDecoder(config, num_genes) for n in self.context_dims})
        self.fuse = FUSIONS[config.fusion](config.width, len(self.context_dims)) if self.context_dims else None

    def forward(self, fine: Tensor, graph: Subgraph) -> Predictions:
        """Predict every level of one subgraph.

        `fine` is (N, C); it and the contexts' features may be float16, each is cast to the dtype of the parameters.
        Raises `MagnetError` when a level is missing or a width is not the one the model was built for.
        """
        self._check(fine, graph)
        contexts = {name: graph.contexts[name] for name in self.context_dims}

        nodes = self.project_fine(fine)  # (N, C) -> (N, D)
        if self.fuse is not None:
            attended = [self.attend[name](nodes, context) for name, context in contexts.items()]  # Eq. 1
            nodes = self.fuse(nodes, attended)
        return Predictions(
            fine=self.decode_fine(nodes, graph.edges),  # Eq. 2
            contexts={
                name: self.decode_context[name](self.project_context[name](context.pooled), context.edges)
                for name, context in contexts.items()
            },
        )

    def set_output_bias(self, fine: Tensor, contexts: Mapping[str, Tensor]) -> None:
        """Start at the mean expression (G,) of the training slides, normalised log, fine and by context level.

        A context level without a mean (nothing was measured there) starts from the mean of the fine level.
        """
        self.decode_fine.head.set_bias(fine)
        for name, decoder in self.decode_context.items():
            cast(LevelDecoder, decoder).head.set_bias(contexts.get(name, fine))

    def _check(self, fine: Tensor, graph: Subgraph) -> None:
        missing = [name for name in self.context_dims if name not in graph.contexts]
        if missing:
            raise MagnetError(
                "subgraph",
                expected=f"context levels {', '.join(self.context_dims)}",
                found=f"no {', '.join(missing)}",
                remedy="use a store that holds them, or set use_multires=false",
            )
        _check_width("fine features", fine, width=self.fine_dim)
        for name, width in self.context_dims.items():
            context = graph.contexts[name]
            _check_width(f"pooled {name} features", context.pooled, width=width)
            _check_width(f"{name} tokens", context.tokens, width=width)
            if len(context.pair) != len(fine):
                raise MagnetError(
                    f"pairing with {name}",
                    expected=f"one {name} for each of {len(fine)} fine nodes",
                    found=f"{len(context.pair)}",
                    remedy="rebuild the subgraph from one selection of fine nodes",
                )


def _check_width(where: str, features: Tensor, *, width: int) -> None:
    if features.shape[-1] != width:
        raise MagnetError(
            where,
            expected=f"{width} values a row",
            found=f"{features.shape[-1]}",
            remedy="use the backbone that this model was trained with",
        )
