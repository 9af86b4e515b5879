"""What the model takes in and gives out: a subgraph of one slide.

The *fine* level is the one whose encoder is fine-tuned (bins of 8 or 16 µm; spots in the 55 µm task). The other two
levels are *contexts*: their encoders are frozen and their features come from the store.
"""

from dataclasses import dataclass, field

from torch import Tensor

# N fine nodes, M nodes of a context level, P of them seen by a fine node, W by one, T tokens of a patch, D raw feature
# width, E edges, G genes


@dataclass(frozen=True)
class Context:
    """One frozen level of a subgraph.

    pooled   (M, D)    raw pooled features, as cached
    tokens   (P, T, D) raw token features, as cached, of the nodes that fine nodes see
    edges    (2, E)    int64, row 0 = source (the neighbour), row 1 = target (the node that looks)
    pair     (N,)      int64, which of the M context nodes each fine node is paired with
    seen     (N, W)    int64, which of the P rows of tokens each fine node sees; None: of all M nodes, the paired one
    weights  (N, W)    of what it sees, float, each row's sum 1; None: one is seen alone
    """

    pooled: Tensor
    tokens: Tensor
    edges: Tensor
    pair: Tensor
    seen: Tensor | None = None
    weights: Tensor | None = None


@dataclass(frozen=True)
class Subgraph:
    """Edges among the N fine nodes, (2, E) int64 source over target, and the context levels by name."""

    edges: Tensor
    contexts: dict[str, Context] = field(default_factory=dict)


@dataclass(frozen=True)
class Predictions:
    """Normalised log expression: fine (N, G), and per context level (M, G)."""

    fine: Tensor
    contexts: dict[str, Tensor] = field(default_factory=dict)
