"""Ends of the model: raw features to the model's width, and nodes to gene expression (paper, end of section 2.2).

In: raw features (N, C) of a backbone, or nodes (N, D). Out: nodes (N, D), or normalised log expression (N, G).
"""

import torch
from torch import Tensor, nn

from magnet_core.errors import MagnetError

# N nodes, C raw feature width, D model width, G genes

OUTPUT_STD = 0.1  # of a new head's predictions around its bias, in units of log expression


class FeatureProjection(nn.Module):
    """LayerNorm, then Linear: (N, C) -> (N, D).

    Raw features differ in scale from backbone to backbone by orders of magnitude; normalising each row first lets one
    learning rate serve all of them.
    """

    def __init__(self, feature_dim: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(feature_dim)
        self.linear = nn.Linear(feature_dim, width)

    def forward(self, features: Tensor) -> Tensor:
        """Return nodes (N, D) of raw features (N, C), of any floating dtype, in the parameters' dtype."""
        nodes: Tensor = self.linear(self.norm(features.to(self.linear.weight.dtype)))
        return nodes


class ExpressionHead(nn.Module):
    """LayerNorm, then Linear: nodes (N, D) to normalised log expression (N, G).

    After LayerNorm a row has norm √D, so weights of sd OUTPUT_STD/√D give predictions of sd OUTPUT_STD around the bias:
    with the bias at the mean expression, training starts near the gene-mean predictor, and still every parameter
    before the head gets a gradient from the first step, which it would not from weights of zero.
    """

    def __init__(self, width: int, num_genes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_genes)
        nn.init.normal_(self.linear.weight, std=OUTPUT_STD * width**-0.5)
        nn.init.zeros_(self.linear.bias)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return expression (N, G) of nodes (N, D)."""
        expression: Tensor = self.linear(self.norm(nodes))
        return expression

    @torch.no_grad()
    def set_bias(self, mean_expression: Tensor) -> None:
        """Start from `mean_expression` (G,), normalised log, of the training slides; it must be finite."""
        num_genes = len(self.linear.bias)
        if mean_expression.shape != (num_genes,) or not mean_expression.isfinite().all():
            raise MagnetError(
                "mean expression",
                expected=f"{num_genes} finite values, one per gene",
                found=f"shape {tuple(mean_expression.shape)}, {int((~mean_expression.isfinite()).sum())} not finite",
                remedy="compute it on the training slides, over the genes of the panel",
            )
        self.linear.bias.copy_(mean_expression)
