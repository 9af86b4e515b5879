"""Cross-attention of fine nodes over a context level: paper, section 2.1, Eq. 1.

In: the projected fine nodes and one `Context` with raw, cached features. Out: per fine node what it found there.
The paper writes f' = softmax(f_b f_iᵀ / √d) f_i on features of one width; ours have different widths, so queries, keys
and values are learnt projections. Two readings of the keys are offered, `ATTENTIONS` names them:

- `tokens`: the T patch tokens of the *paired* context node. A prediction needs no other node of the level.
- `graph`: the pooled features of *all* context nodes of the subgraph, Eq. 1 as a matrix product. A prediction then
  depends on which context nodes share the batch.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from magnet_core.model.batch import Context
from magnet_core.settings.model import Attend

# N fine nodes, M context nodes, P of them paired, T tokens of a patch, C raw context width, D model width


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
    """Eq. 1 with the tokens of the paired context node as keys and values.

    With a single token (T = 1) the softmax is 1 whatever the query: the result is the projected value and `query` and
    `key` get a zero gradient. Cache several tokens to let the fine node look at parts of its surroundings.
    """

    def forward(self, fine: Tensor, context: Context) -> Tensor:
        """Attend from `fine` (N, D) to `context.tokens` (P, T, C) of the paired nodes; returns (N, D)."""
        pair = context.pair if context.token_pair is None else context.token_pair
        tokens = self.norm(context.tokens.to(self.key.weight.dtype))
        # Each context node is projected once, then gathered: N fine nodes share P of them, N >> P at HD.
        keys = self.key(tokens).index_select(0, pair)  # (P, T, C) -> (P, T, D) -> (N, T, D)
        values = self.value(tokens).index_select(0, pair)
        queries = self.query(fine).unsqueeze(1)  # (N, D) -> (N, 1, D)
        return F.scaled_dot_product_attention(queries, keys, values).squeeze(1)  # (N, 1, D) -> (N, D)


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
