"""The GAT-Transformer against Eq. 2 written out in loops, and which nodes may reach which."""

import math

import pytest
import torch
from torch import Tensor

from magnet_core.model.gat_transformer import GatRound, GatTransformer
from magnet_core.settings.model import ModelConfig

# N nodes, K heads, L rounds, D model width
N, K, L, D = 9, 2, 3, 8
PATH = torch.tensor([[1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5]])  # i looks at i + 1; nodes 7 and 8 are isolated


@pytest.fixture
def nodes() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def block() -> GatTransformer:
    torch.manual_seed(3)
    return GatTransformer(ModelConfig(width=D, heads=K, rounds=L, dropout=0.0)).double()


def leaky_relu(value: float) -> float:
    return value if value > 0 else 0.2 * value


def elu(value: Tensor) -> Tensor:
    return torch.where(value > 0, value, torch.exp(value.clamp(max=0)) - 1)


def gat_round_slowly(nodes: Tensor, edges: Tensor, module: GatRound) -> Tensor:
    """Eq. 2, one node and one head at a time, inside the LayerNorm and the residual."""
    normed = torch.nn.functional.layer_norm(nodes, (D,), module.norm.weight, module.norm.bias)
    attention = module.attention
    per_head = D // K
    rows = []
    for i in range(len(nodes)):
        neighbours = [i] + [int(j) for j, target in edges.T if int(target) == i]
        heads = []
        for k in range(K):
            weight = attention.lin.weight[k * per_head : (k + 1) * per_head]
            look = float(attention.att_dst[0, k] @ (weight @ normed[i]))
            scores = [
                math.exp(leaky_relu(look + float(attention.att_src[0, k] @ (weight @ normed[j])))) for j in neighbours
            ]
            summed = sum((s / sum(scores)) * (weight @ normed[j]) for s, j in zip(scores, neighbours, strict=True))
            heads.append(elu(summed + attention.bias[k * per_head : (k + 1) * per_head]))
        rows.append(nodes[i] + torch.cat(heads))
    return torch.stack(rows)


@torch.no_grad()
def test_rounds_equal_equation_2_in_loops(block: GatTransformer, nodes: Tensor) -> None:
    for name, weight in block.named_parameters():
        if name.endswith("attention.bias"):
            weight.normal_()
    fast = block.run_rounds(nodes, PATH)
    assert fast.shape == (L, N, D)
    slow = nodes
    for number, gat_round in enumerate(block.rounds):
        assert isinstance(gat_round, GatRound)
        slow = gat_round_slowly(slow, PATH, gat_round)
        torch.testing.assert_close(fast[number], slow)


@torch.no_grad()
def test_a_round_equals_equation_2_for_any_number_of_neighbours(block: GatTransformer, nodes: Tensor) -> None:
    """Graphs of 0 to N neighbours a node, with scores on both sides of the LeakyReLU's kink."""
    gat_round = block.rounds[0]
    assert isinstance(gat_round, GatRound)
    for weight in (gat_round.attention.att_src, gat_round.attention.att_dst, gat_round.attention.bias):
        weight.normal_(generator=torch.Generator().manual_seed(6))
    generator = torch.Generator().manual_seed(7)
    for density in (0.0, 0.3, 0.7, 1.0):
        looks = torch.rand(N, N, generator=generator) < density  # target by source
        edges = looks.fill_diagonal_(False).nonzero().T.flip(0)  # the loops are the layer's to add
        torch.testing.assert_close(gat_round(nodes, edges), gat_round_slowly(nodes, edges, gat_round))


@torch.no_grad()
def test_transformer_sees_the_rounds_of_one_node(block: GatTransformer, nodes: Tensor) -> None:
    together = block(nodes, PATH)
    per_round = block.run_rounds(nodes, PATH)
    for node in range(N):
        alone = torch.stack([per_round[number, node] for number in range(L)]) + block.round_embedding
        torch.testing.assert_close(together[node], block.transformer(alone.unsqueeze(0))[0].mean(dim=0))


@torch.no_grad()
def test_permuting_nodes_permutes_the_output(block: GatTransformer, nodes: Tensor) -> None:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(4))
    place = torch.argsort(order)  # node i of before is row place[i] of after
    shuffled_edges = place[PATH][:, torch.randperm(PATH.shape[1], generator=torch.Generator().manual_seed(5))]
    torch.testing.assert_close(block(nodes[order], shuffled_edges), block(nodes, PATH)[order])


def test_a_node_is_reached_from_l_hops_against_the_arrow_of_its_look(block: GatTransformer, nodes: Tensor) -> None:
    nodes.requires_grad_()
    (gradient,) = torch.autograd.grad(block(nodes, PATH)[0].sum(), nodes)
    reached = (gradient.abs().sum(dim=1) > 0).tolist()
    assert reached == [True, True, True, True, False, False, False, False, False]  # itself and L = 3 hops of sources


@torch.no_grad()
def test_unconnected_parts_do_not_see_each_other(block: GatTransformer, nodes: Tensor) -> None:
    together = block(nodes, PATH)
    torch.testing.assert_close(together[7:], block(nodes[7:], PATH[:, :0]))
    torch.testing.assert_close(together[:7], block(nodes[:7], PATH))


def test_isolated_nodes_keep_their_own_feature(block: GatTransformer, nodes: Tensor) -> None:
    no_edges = PATH[:, :0]
    jacobian = torch.autograd.functional.jacobian(lambda row: block(row, no_edges), nodes[:1])
    assert torch.linalg.matrix_rank(jacobian.reshape(D, D)) == D


def test_listing_a_self_loop_changes_nothing(block: GatTransformer, nodes: Tensor) -> None:
    loops = torch.arange(N).repeat(2, 1)
    torch.testing.assert_close(block(nodes, torch.cat([PATH, loops], dim=1)), block(nodes, PATH))


def test_transformer_layers_start_different() -> None:
    block = GatTransformer(ModelConfig(width=D, heads=K, transformer_layers=2))
    first, second = (layer.state_dict() for layer in block.transformer)
    assert not torch.equal(first["linear1.weight"], second["linear1.weight"])
