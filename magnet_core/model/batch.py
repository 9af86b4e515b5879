"""What the model takes in and gives out: a subgraph of one slide.

The *fine* level is the one whose encoder is fine-tuned (bins of 8 or 16 µm; spots in the 55 µm task). The other two
levels are *contexts*: their encoders are frozen and their features come from the store.
"""

from dataclasses import dataclass, field

from torch import Tensor

# N fine nodes, M nodes of a context level, P of them paired with a fine node, T tokens of a patch, D raw feature width,
# E edges, G genes


@dataclass(frozen=True)
class Context:
    """One frozen level of a subgraph.

    pooled     (M, D)    raw pooled features, as cached
    tokens     (P, T, D) raw token features, as cached, of the nodes that a fine node is paired with
    edges      (2, E)    int64, row 0 = source (the neighbour), row 1 = target (the node that looks)
    pair       (N,)      int64, which of the M context nodes each fine node is paired with
    token_pair (N,)      int64, which of the P rows of tokens is its; None where there are tokens of all M nodes
    """

    pooled: Tensor
    tokens: Tensor
    edges: Tensor
    pair: Tensor
    token_pair: Tensor | None = None


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
