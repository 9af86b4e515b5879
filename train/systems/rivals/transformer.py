"""Parts of a transformer that several rivals have alike: its layers, and the places of rows on the grid of a window."""

from torch import Tensor, nn

from train.settings.rivals import TransformerSettings

# n rows of a window, D width


def transformer_layers(sizes: TransformerSettings) -> nn.Sequential:
    """Build `depth` layers of self-attention over (batch, sequence, D), normalised before each of their two parts."""
    return nn.Sequential(
        *(
            nn.TransformerEncoderLayer(
                sizes.width, sizes.heads, sizes.mlp, sizes.dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(sizes.depth)
        )
    )


class PositionEmbedding(nn.Module):
    """A learnt vector for each column and one for each row of a window's grid."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.of_x = nn.Embedding(positions, width)
        self.of_y = nn.Embedding(positions, width)

    def forward(self, nodes: Tensor, positions: Tensor) -> Tensor:
        """Add to nodes (n, D) the vectors of their positions (n, 2), x and y."""
        result: Tensor = nodes + self.of_x(positions[:, 0]) + self.of_y(positions[:, 1])
        return result
