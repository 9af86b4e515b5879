"""The GAT-Transformer block: paper, section 2.2, Eq. 2 and the Transformer layer after it.

In: the nodes of one level and the edges among them. Out: the nodes with their neighbourhood aggregated, same shape
and order. L rounds of graph attention run in sequence and the output of every round is kept; a Transformer then
weighs the L rounds *of each node* against each other. Nodes never attend to nodes in the Transformer: permuting the
nodes permutes the output, and unconnected parts of a graph do not see each other.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magnet_core.settings.model import ModelConfig

with warnings.catch_warnings():  # torch_geometric calls torch.jit.script while it is imported
    warnings.filterwarnings("ignore", message=r"`torch\.jit", category=FutureWarning)
    from torch_geometric.nn import GATConv

# N nodes, E edges, L rounds, K heads, D model width


class GatRound(nn.Module):
    """One round: f + σ(‖ₖ Σⱼ αᵏᵢⱼ Wᵏ norm(f)ⱼ), Eq. 2 between a LayerNorm and a residual.

    Eq. 2 alone averages a node with its neighbours at every round; on a dense bin grid the bins grow alike within a few
    rounds and their own pixels are lost. The residual keeps them, the LayerNorm keeps the rounds at one scale.
    σ is ELU, as in the GAT paper; self-loops make a node one of its own neighbours.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.attention = GATConv(
            config.width,
            config.width // config.heads,
            heads=config.heads,
            concat=True,
            dropout=config.dropout,
            add_self_loops=True,
        )

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Return nodes (N, D) after one round over `edges` (2, E), source over target."""
        return nodes + F.elu(self.attention(self.norm(nodes), edges))


class GatTransformer(nn.Module):
    """L rounds of graph attention, then a Transformer over the rounds of each node and their mean."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rounds = nn.ModuleList(GatRound(config) for _ in range(config.rounds))
        self.round_embedding = nn.Parameter(0.02 * torch.randn(config.rounds, config.width))
        self.transformer = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    config.width,
                    config.heads,
                    dim_feedforward=2 * config.width,
                    dropout=config.dropout,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(config.transformer_layers)
            )
        )

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Return nodes (N, D) with their L-hop neighbourhood aggregated; edges (2, E) int64, source over target."""
        per_round = self.run_rounds(nodes, edges)
        sequence = per_round.permute(1, 0, 2) + self.round_embedding  # (L, N, D) -> (N, L, D)
        aggregated: Tensor = self.transformer(sequence).mean(dim=1)  # (N, L, D) -> (N, D)
        return aggregated

    def run_rounds(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Return the output of every round, (L, N, D); round l starts from the output of round l - 1."""
        outputs = []
        for gat_round in self.rounds:
            nodes = gat_round(nodes, edges)
            outputs.append(nodes)
        return torch.stack(outputs)
