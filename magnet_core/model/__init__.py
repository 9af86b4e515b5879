"""The model: raw features of a subgraph in, gene expression of every level out (paper, section 2)."""

from magnet_core.model.batch import Context, Predictions, Subgraph
from magnet_core.model.magnet import MagNet

__all__ = ["Context", "MagNet", "Predictions", "Subgraph"]
