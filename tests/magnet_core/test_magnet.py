"""The whole model: every parameter is used, a batch can be learnt, nothing reaches where it should not."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from magnet_core.errors import MagnetError
from magnet_core.losses import Labels, magnet_loss
from magnet_core.model import Context, MagNet, Predictions, Subgraph
from magnet_core.model.cross_attention import ATTENTIONS
from magnet_core.model.fusion import FUSIONS
from magnet_core.settings.loss import LossConfig
from magnet_core.settings.model import ModelConfig

# N fine nodes, M context nodes, T tokens, C raw width, G genes
N, G = 24, 6
C_FINE, C_SPOT, C_REGION = 10, 12, 7
SMALL = ModelConfig(width=16, heads=2, rounds=2, dropout=0.0)
CHOICES: dict[str, Iterable[Any]] = {
    "attend": ATTENTIONS,
    "fusion": FUSIONS,
    "use_gat": (True, False),
    "use_multires": (True, False),
}
ALL_MODES = [
    SMALL.changed(**dict(zip(CHOICES, choice, strict=True))) for choice in itertools.product(*CHOICES.values())
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on several threads, by far so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ring(num_nodes: int) -> Tensor:
    """Edges of a ring, both ways: (2, 2·num_nodes)."""
    here = torch.arange(num_nodes)
    there = (here + 1) % num_nodes
    return torch.stack([torch.cat([here, there]), torch.cat([there, here])])


def make_batch(num_fine: int = N, *, tokens: int = 4, seed: int = 0) -> tuple[Tensor, Subgraph]:
    generator = torch.Generator().manual_seed(seed)

    def context(num_nodes: int, width: int) -> Context:
        return Context(
            pooled=torch.randn(num_nodes, width, generator=generator),
            tokens=torch.randn(num_nodes, tokens, width, generator=generator),
            edges=ring(num_nodes),
            pair=torch.arange(num_fine) * num_nodes // num_fine,
        )

    fine = torch.randn(num_fine, C_FINE, generator=generator)
    return fine, Subgraph(ring(num_fine), {"spot": context(8, C_SPOT), "region": context(6, C_REGION)})


def make_labels(seed: int = 1) -> Labels:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.poisson(torch.full((N, G), 2.0), generator=generator)
    return Labels(
        torch.rand(N, G, generator=generator),
        {"spot": torch.rand(8, G, generator=generator), "region": torch.rand(6, G, generator=generator)},
        counts=counts,
        library=counts.sum(dim=1),
        dispersion=torch.full((G,), 0.5),
    )


def make_model(config: ModelConfig = SMALL) -> MagNet:
    torch.manual_seed(7)
    return MagNet(config, fine_dim=C_FINE, context_dims={"spot": C_SPOT, "region": C_REGION}, num_genes=G)


def every_tensor(predictions: Predictions) -> list[Tensor]:
    return [predictions.fine, *predictions.contexts.values()]


def names_without_gradient(model: MagNet, batch: tuple[Tensor, Subgraph], labels: Labels, loss: LossConfig) -> set[str]:
    """Names of the parameters whose gradient is 0 but for rounding, in float64."""
    fine, graph = batch
    model = model.double()
    contexts = {
        n: dataclasses.replace(c, pooled=c.pooled.double(), tokens=c.tokens.double()) for n, c in graph.contexts.items()
    }
    value, _ = magnet_loss(model(fine.double(), Subgraph(graph.edges, contexts)), labels, graph=graph, config=loss)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in gradients)
    sizes = torch.stack([gradient.abs().max() for gradient in gradients])
    return {name for name, size in zip(names, sizes, strict=True) if size < 1e-9 * sizes.max()}


@pytest.mark.parametrize("config", ALL_MODES, ids=str)
@pytest.mark.parametrize("over", ["bins", "genes"])
@pytest.mark.parametrize("likelihood", ["mse", "poisson", "negative_binomial"])
def test_every_parameter_gets_a_gradient(config: ModelConfig, over: Any, likelihood: Any) -> None:
    """All but what sets the offset of a context's genes: a context has correlations only, those over bins ignore it."""
    model, batch, labels = make_model(config), make_batch(), make_labels()
    offsets = {f"decode_context.{n}.head.{part}.bias" for n in model.context_dims for part in ("norm", "linear")}
    for measured in (("spot", "region"), ("spot",), ()):
        known = dataclasses.replace(labels, contexts={name: labels.contexts[name] for name in measured})
        found = names_without_gradient(model, batch, known, LossConfig(pcc_over=over, likelihood=likelihood))
        assert found == (offsets if over == "bins" else set())


def test_a_context_that_nothing_is_compared_with_learns_nothing() -> None:
    """Without labels and without consistency; its features still reach the fine level by the cross-attention."""
    model = make_model()
    only_spot = Labels(make_labels().fine, {"spot": make_labels().contexts["spot"]})
    found = names_without_gradient(model, make_batch(), only_spot, LossConfig(pcc_over="genes", consistency=False))
    own = ("decode_context.region.", "project_context.region.")
    assert found == {name for name, _ in model.named_parameters() if name.startswith(own)}


@pytest.mark.parametrize("attend", ["tokens", "graph"])
def test_with_one_token_a_query_has_nothing_to_choose(attend: Any) -> None:
    model = make_model(SMALL.changed(attend=attend))
    found = names_without_gradient(model, make_batch(tokens=1), make_labels(), LossConfig(pcc_over="genes"))
    choosing = {f"attend.{level}.{part}.weight" for level in model.context_dims for part in ("query", "key")}
    assert found == (choosing if attend == "tokens" else set())


def test_what_is_switched_off_is_not_built() -> None:
    names = {n.split(".")[0] for n, _ in make_model(SMALL.changed(use_multires=False)).named_parameters()}
    assert names == {"project_fine", "decode_fine"}
    without_gat = make_model(SMALL.changed(use_gat=False))
    assert not any("graph" in name for name, _ in without_gat.named_parameters())
    assert without_gat.config.reach == 0


def test_without_multires_no_context_is_read_or_predicted() -> None:
    model = make_model(SMALL.changed(use_multires=False))
    fine, graph = make_batch()
    alone = model(fine, Subgraph(graph.edges))
    assert alone.contexts == {}
    torch.testing.assert_close(model(fine, graph).fine, alone.fine)


@pytest.mark.parametrize("attend", ["tokens", "graph"])
def test_one_batch_is_overfitted(attend: Any) -> None:
    model = make_model(SMALL.changed(width=32, attend=attend))
    (fine, graph), labels = make_batch(), make_labels()
    model.set_output_bias(labels.fine.mean(dim=0), {})
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    config = LossConfig(consistency=False)
    history = []
    for _ in range(80):
        loss, parts = magnet_loss(model(fine, graph), labels, graph=graph, config=config)
        history.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert history[0] > 0.5
    assert history[-1] < 0.02 * history[0]
    assert all(part < 0.02 for part in parts.values())


@pytest.mark.parametrize("config", ALL_MODES, ids=str)
@torch.no_grad()
def test_permuting_nodes_permutes_the_predictions(config: ModelConfig) -> None:
    model = make_model(config).eval()
    fine, graph = make_batch()
    expected = model(fine, graph)

    generator = torch.Generator().manual_seed(11)
    order = torch.randperm(N, generator=generator)
    contexts, context_orders = {}, {}
    for name, context in graph.contexts.items():
        context_order = torch.randperm(len(context.pooled), generator=generator)
        place = torch.argsort(context_order)
        contexts[name] = Context(
            context.pooled[context_order],
            context.tokens[context_order],
            place[context.edges],
            place[context.pair][order],
        )
        context_orders[name] = context_order
    found = model(fine[order], Subgraph(torch.argsort(order)[graph.edges], contexts))
    torch.testing.assert_close(found.fine, expected.fine[order], atol=1e-5, rtol=1e-5)
    for name, predicted in found.contexts.items():
        torch.testing.assert_close(predicted, expected.contexts[name][context_orders[name]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", ALL_MODES, ids=str)
@pytest.mark.parametrize("rounds", [1, 4])
def test_own_feature_reaches_the_prediction_without_edges(config: ModelConfig, rounds: int) -> None:
    model = make_model(config.changed(rounds=rounds))
    fine, graph = make_batch()
    fine.requires_grad_()
    predicted = model(fine, Subgraph(graph.edges[:, :0], graph.contexts)).fine[5]
    reached = torch.autograd.grad(predicted.square().sum(), fine)[0].abs().sum(dim=1)
    assert reached[5] > 1e-3
    assert (reached > 0).sum() == 1


@torch.no_grad()
def test_a_prediction_does_not_depend_on_batch_mates() -> None:
    """Two subgraphs as one block-diagonal batch predict what each predicts alone."""
    model = make_model().eval()
    (fine_a, a), (fine_b, b) = make_batch(seed=2), make_batch(16, seed=3)
    joined = Subgraph(
        torch.cat([a.edges, b.edges + N], dim=1),
        {
            name: Context(
                torch.cat([x.pooled, y.pooled]),
                torch.cat([x.tokens, y.tokens]),
                torch.cat([x.edges, y.edges + len(x.pooled)], dim=1),
                torch.cat([x.pair, y.pair + len(x.pooled)]),
            )
            for name, (x, y) in {n: (a.contexts[n], b.contexts[n]) for n in a.contexts}.items()
        },
    )
    together = every_tensor(model(torch.cat([fine_a, fine_b]), joined))
    for both, first, second in zip(
        together, every_tensor(model(fine_a, a)), every_tensor(model(fine_b, b)), strict=True
    ):
        torch.testing.assert_close(both, torch.cat([first, second]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_paired_context_changes_the_fine_prediction() -> None:
    model = make_model().eval()
    fine, graph = make_batch()
    spot = graph.contexts["spot"]
    changed = dataclasses.replace(
        spot, tokens=spot.tokens.index_add(0, torch.tensor([0]), torch.ones(1, 4, C_SPOT).cumsum(2))
    )
    no_edges = graph.edges[:, :0]
    before = model(fine, Subgraph(no_edges, graph.contexts)).fine
    after = model(fine, Subgraph(no_edges, {**graph.contexts, "spot": changed})).fine
    differs = (before - after).abs().amax(dim=1) > 1e-4
    assert torch.equal(differs, spot.pair == 0)


@torch.no_grad()
def test_float16_features_of_the_store() -> None:
    model = make_model().eval()
    fine, graph = make_batch()
    stored = {
        n: dataclasses.replace(c, pooled=c.pooled.half(), tokens=c.tokens.half()) for n, c in graph.contexts.items()
    }
    exact = {n: dataclasses.replace(c, pooled=c.pooled.float(), tokens=c.tokens.float()) for n, c in stored.items()}
    from_half = model(fine.half(), Subgraph(graph.edges, stored))
    from_float = model(fine.half().float(), Subgraph(graph.edges, exact))
    for half, single in zip(every_tensor(from_half), every_tensor(from_float), strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, single)


@pytest.mark.parametrize("config", ALL_MODES, ids=str)
@torch.no_grad()
def test_autocast_keeps_the_predictions(config: ModelConfig) -> None:
    model = make_model(config)
    fine, graph = make_batch()
    exact = model(fine, graph)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(fine, graph)
    for half, single in zip(every_tensor(rounded), every_tensor(exact), strict=True):
        torch.testing.assert_close(half.float(), single, atol=0.03, rtol=0.0)


@pytest.mark.parametrize("scale", [1e-2, 1e2])
@torch.no_grad()
def test_scale_of_a_backbone_does_not_matter(scale: float) -> None:
    model = make_model().eval()
    fine, graph = make_batch()
    scaled = {
        n: dataclasses.replace(c, pooled=c.pooled * scale, tokens=c.tokens * scale) for n, c in graph.contexts.items()
    }
    for one, other in zip(
        every_tensor(model(fine, graph)), every_tensor(model(fine * scale, Subgraph(graph.edges, scaled))), strict=True
    ):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0.0)


@pytest.mark.parametrize("attend", ["tokens", "graph"])
@torch.no_grad()
def test_a_halo_of_reach_hops_makes_a_prediction_exact(attend: Any) -> None:
    """The ring cut `reach` hops around its first eight nodes predicts these as the whole ring does, for tokens only."""
    model = make_model(SMALL.changed(attend=attend)).eval()
    fine, graph = make_batch()
    core, reach = 8, model.config.reach
    kept = torch.arange(-reach, core + reach) % N
    place = torch.full((N,), -1).index_copy(0, kept, torch.arange(len(kept)))
    edges = place[graph.edges]
    contexts = {}
    for name, context in graph.contexts.items():
        used, pair = context.pair[kept].unique(return_inverse=True)
        contexts[name] = Context(context.pooled[used], context.tokens[used], context.edges[:, :0], pair)
    cut = model(fine[kept], Subgraph(edges[:, (edges >= 0).all(dim=0)], contexts)).fine[reach : reach + core]
    error = (cut - model(fine, graph).fine[:core]).abs().max()
    assert (error < 1e-5) == (attend == "tokens")


@torch.no_grad()
def test_training_starts_near_the_gene_means() -> None:
    model = make_model().eval()
    fine, graph = make_batch()
    fine_mean, spot_mean = torch.linspace(0.5, 3, G), torch.linspace(3, 0.5, G)
    model.set_output_bias(fine_mean, {"spot": spot_mean})
    predictions = model(fine, graph)
    expected = {"spot": spot_mean, "region": fine_mean}
    assert (predictions.fine - fine_mean).std() < 0.2
    for name, predicted in predictions.contexts.items():
        assert (predicted - expected[name]).std() < 0.2


@pytest.mark.parametrize("means", [torch.zeros(G + 1), torch.full((G,), torch.nan)])
def test_unusable_means_are_refused(means: Tensor) -> None:
    with pytest.raises(MagnetError, match="one per gene"):
        make_model().set_output_bias(means, {})


def test_inputs_of_another_backbone_are_refused() -> None:
    model = make_model()
    fine, graph = make_batch()
    with pytest.raises(MagnetError, match="fine features: expected 10 values a row, found 3"):
        model(fine[:, :3], graph)
    with pytest.raises(MagnetError, match="no region"):
        model(fine, Subgraph(graph.edges, {"spot": graph.contexts["spot"]}))
    with pytest.raises(MagnetError, match="pairing with spot"):
        model(fine[:5], graph)


@pytest.mark.parametrize(
    "wrong",
    [{"width": 10, "heads": 4}, {"rounds": 0}, {"dropout": 1.0}, {"attend": "token"}, {"fusion": "mean"}],
    ids=str,
)
def test_wrong_options_are_refused_where_they_are_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(MagnetError, match=r"model\."):
        ModelConfig(**wrong)


def test_weights_survive_a_round_trip() -> None:
    model, other = make_model(), make_model(SMALL.changed())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1)
    other.load_state_dict(model.state_dict())
    fine, graph = make_batch()
    assert torch.equal(model(fine, graph).fine, other(fine, graph).fine)
