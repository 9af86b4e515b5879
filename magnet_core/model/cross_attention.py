"""Cross-attention of fine nodes over a context level: paper, section 2.1, Eq. 1.

In: the projected fine nodes and one `Context` with raw, cached features. Out: per fine node what it found there.
The paper writes f' = softmax(f_b f_iᵀ / √d) f_i on features of one width; ours have different widths, so queries, keys
and values are learnt projections. Two readings of the keys are offered, `ATTENTIONS` names them:

- `tokens`: the T patch tokens of a context node, Eq. 1 once for each of the nodes that the fine node sees: the one it
  is paired with, or the four around it, blended by where it lies. A prediction needs no other node of the level.
- `graph`: the pooled features of *all* context nodes of the subgraph, Eq. 1 as a matrix product. A prediction then
  depends on which context nodes share the batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magnet_core.model.batch import Context
from magnet_core.settings.model import Attend

# N fine nodes, M context nodes, P of them seen, W by one fine node, T tokens of a patch, C raw context width,
# D model width


class CrossAttention(nn.Module):
    """The parameters both readings share: LayerNorm on the raw features, then query, key and value projections.

    Backbones differ in feature scale by orders of magnitude; LayerNorm makes the softmax start from the same
    temperature for all. No biases: one on the keys shifts a node's scores alike and leaves the softmax as it is.
    """

    def __init__(self, context_dim: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(context_dim)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(context_dim, width, bias=False)
        self.value = nn.Linear(context_dim, width, bias=False)


class TokenAttention(CrossAttention):
    """Eq. 1 with the tokens of a context node as keys and values, blended over the nodes that a fine node sees.

    Reading the tokens of one node alone, two touching bins on either side of its border would see other surroundings,
    and a map of every bin would show where the nodes' squares end. With a single token (T = 1) the softmax is 1
    whatever the query: the result is the projected value and `query` and `key` get a zero gradient.
    """

    def forward(self, fine: Tensor, context: Context) -> Tensor:
        """Attend from `fine` (N, D) to `context.tokens` (P, T, C) of the nodes that are seen; returns (N, D)."""
        tokens = self.norm(context.tokens.to(self.key.weight.dtype))
        # Each context node is projected once: N fine nodes share P of them, N >> P at HD.
        keys, values, queries = self.key(tokens), self.value(tokens), self.query(fine)  # (P, T, D) twice, (N, D)
        if context.weights is not None:
            return _blend(queries, keys, values, _weight_of_nodes(context, len(keys), dtype=queries.dtype))
        node = context.pair if context.seen is None else context.seen[:, 0]
        keys, values = keys.index_select(0, node), values.index_select(0, node)  # (P, T, D) -> (N, T, D)
        return F.scaled_dot_product_attention(queries.unsqueeze(1), keys, values).squeeze(1)  # (N, 1, D) -> (N, D)


def _weight_of_nodes(context: Context, num_nodes: int, *, dtype: torch.dtype) -> Tensor:
    """What each of P nodes weighs for each fine node (N, P); most weigh nothing."""
    assert context.seen is not None
    assert context.weights is not None
    weights = torch.zeros(len(context.seen), num_nodes, dtype=dtype, device=context.seen.device)
    return weights.scatter_add(1, context.seen, context.weights.to(dtype))


def _blend(queries: Tensor, keys: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Eq. 1 of queries (N, D) over the tokens (P, T, D) of each node, summed by the nodes' weights (N, P); (N, D).

    As products of whole matrices, most of whose weights are 0: gathering four nodes for each fine node takes longer.
    """
    scores = queries @ keys.flatten(0, 1).T / math.sqrt(queries.shape[1])  # (N, P·T)
    attention = scores.unflatten(1, keys.shape[:2]).softmax(dim=2) * weights[:, :, None]  # (N, P, T)
    found: Tensor = attention.flatten(1) @ values.flatten(0, 1)
    return found


class GraphAttention(CrossAttention):
    """Eq. 1 with the pooled features of all context nodes of the subgraph as keys and values."""

    def forward(self, fine: Tensor, context: Context) -> Tensor:
        """Attend from `fine` (N, D) to every row of `context.pooled` (M, C); returns (N, D)."""
        pooled = self.norm(context.pooled.to(self.key.weight.dtype))
        keys = self.key(pooled).unsqueeze(0)  # (M, D) -> (1, M, D)
        values = self.value(pooled).unsqueeze(0)
        queries = self.query(fine).unsqueeze(0)  # (N, D) -> (1, N, D)
        return F.scaled_dot_product_attention(queries, keys, values).squeeze(0)  # (1, N, D) -> (N, D)


ATTENTIONS: dict[Attend, type[TokenAttention] | type[GraphAttention]] = {
    "tokens": TokenAttention,
    "graph": GraphAttention,
}
