"""Cross-attention against Eq. 1 written out in loops, and what it may and may not depend on."""

import math

import pytest
import torch
from torch import Tensor

from magnet_core.model.batch import Context
from magnet_core.model.cross_attention import CrossAttention, GraphAttention, TokenAttention

# N fine nodes, M context nodes, T tokens, C raw context width, D model width
N, M, T, C, D = 7, 4, 5, 6, 8
NO_EDGES = torch.zeros((2, 0), dtype=torch.long)


def make_context(num_tokens: int = T) -> Context:
    generator = torch.Generator().manual_seed(1)
    return Context(
        pooled=torch.randn(M, C, generator=generator, dtype=torch.float64),
        tokens=torch.randn(M, num_tokens, C, generator=generator, dtype=torch.float64),
        edges=NO_EDGES,
        pair=torch.tensor([3, 0, 0, 1, 2, 3, 0]),
    )


@pytest.fixture
def fine() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(params=[TokenAttention, GraphAttention])
def attention(request: pytest.FixtureRequest) -> CrossAttention:
    torch.manual_seed(2)
    module: CrossAttention = request.param(C, D).double()
    with torch.no_grad():  # far from the start, where the softmax is nearly flat
        for weight in module.parameters():
            weight.add_(torch.randn_like(weight))
    return module


def layer_norm(row: Tensor, module: CrossAttention) -> Tensor:
    variance = ((row - row.mean()) ** 2).mean()
    return (row - row.mean()) / torch.sqrt(variance + module.norm.eps) * module.norm.weight + module.norm.bias


def attend_slowly(query: Tensor, raw_keys: Tensor, module: CrossAttention) -> Tensor:
    """Eq. 1 for one fine node: softmax(q kᵀ / √d) v, one key at a time."""
    projected_query = module.query.weight @ query
    scores, values = [], []
    for raw in raw_keys:
        normed = layer_norm(raw, module)
        scores.append(math.exp(float(projected_query @ (module.key.weight @ normed)) / math.sqrt(D)))
        values.append(module.value.weight @ normed)
    return torch.stack([(s / sum(scores)) * v for s, v in zip(scores, values, strict=True)]).sum(dim=0)


@torch.no_grad()
def test_equals_equation_1_in_loops(attention: CrossAttention, fine: Tensor) -> None:
    context = make_context()
    fast = attention(fine, context)
    for node in range(N):
        keys = context.tokens[context.pair[node]] if isinstance(attention, TokenAttention) else context.pooled
        torch.testing.assert_close(fast[node], attend_slowly(fine[node], keys, attention))


@torch.no_grad()
def test_the_query_decides_what_is_found(attention: CrossAttention, fine: Tensor) -> None:
    context = make_context()
    before, after = attention(fine, context), attention(fine.roll(1, dims=1), context)
    assert ((before - after).abs().amax(dim=1) > 1e-3).all()


def test_one_token_leaves_nothing_to_choose(fine: Tensor) -> None:
    attention = TokenAttention(C, D).double()
    context = make_context(num_tokens=1)
    found = attention(fine, context)
    torch.testing.assert_close(found, attention(-fine, context))
    weights = (attention.query.weight, attention.key.weight, attention.value.weight)
    query, key, value = torch.autograd.grad(found.square().sum(), weights)
    assert query.abs().max() < 1e-12
    assert key.abs().max() < 1e-12
    assert value.abs().max() > 1e-3


def test_tokens_of_the_paired_node_only(fine: Tensor) -> None:
    attention = TokenAttention(C, D).double()
    context = make_context()
    tokens = context.tokens.requires_grad_()
    (gradient,) = torch.autograd.grad(attention(fine, context)[1].sum(), tokens)  # fine node 1 is paired with 0
    touched = gradient.abs().sum(dim=(1, 2)) > 0
    assert touched.tolist() == [True, False, False, False]


@torch.no_grad()
def test_order_of_tokens_and_of_nodes(attention: CrossAttention, fine: Tensor) -> None:
    context = make_context()
    order = torch.tensor([4, 2, 6, 0, 1, 5, 3])
    shuffled = Context(
        context.pooled.flip(0) if isinstance(attention, GraphAttention) else context.pooled,
        context.tokens.flip(1),
        context.edges,
        context.pair[order],
    )
    torch.testing.assert_close(attention(fine[order], shuffled), attention(fine, context)[order])


@torch.no_grad()
def test_float16_features_of_the_store(fine: Tensor) -> None:
    attention = TokenAttention(C, D)
    context = make_context()
    stored = Context(context.pooled.half(), context.tokens.half(), context.edges, context.pair)
    exact = Context(stored.pooled.float(), stored.tokens.float(), context.edges, context.pair)
    torch.testing.assert_close(attention(fine.float(), stored), attention(fine.float(), exact))


def blended(context: Context, seen: Tensor, weights: Tensor) -> Context:
    return Context(context.pooled, context.tokens, context.edges, context.pair, seen, weights)


@torch.no_grad()
def test_of_several_nodes_equation_1_is_blended_by_their_weights(fine: Tensor) -> None:
    torch.manual_seed(3)
    attention, context = TokenAttention(C, D).double(), make_context()
    seen = torch.randint(M, (N, 4), generator=torch.Generator().manual_seed(4))
    weights = torch.rand(N, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64).softmax(dim=1)
    fast = attention(fine, blended(context, seen, weights))
    for node in range(N):
        parts = [
            weight * attend_slowly(fine[node], context.tokens[other], attention)
            for other, weight in zip(seen[node].tolist(), weights[node], strict=True)
        ]
        torch.testing.assert_close(fast[node], torch.stack(parts).sum(dim=0))


@torch.no_grad()
def test_a_node_that_weighs_nothing_is_not_seen(fine: Tensor) -> None:
    attention, context = TokenAttention(C, D).double(), make_context()
    seen = torch.stack([context.pair, (context.pair + 1) % M], dim=1)
    alone = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(N, 2)
    torch.testing.assert_close(attention(fine, blended(context, seen, alone)), attention(fine, context))
    half = torch.full((N, 2), 0.5, dtype=torch.float64)
    twice = torch.stack([context.pair, context.pair], dim=1)
    torch.testing.assert_close(attention(fine, blended(context, twice, half)), attention(fine, context))
