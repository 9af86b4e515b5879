"""The hybrid loss against Eq. 3 to 5 in numpy, and what is left out of it."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from magnet_core.errors import MagnetError
from magnet_core.losses import Labels, magnet_loss, mse_loss, pcc_loss
from magnet_core.model.batch import Context, Predictions, Subgraph
from magnet_core.settings.loss import LossConfig

# N fine nodes, M context nodes, G genes
N, G = 12, 9
M = {"spot": 5, "region": 3}
PAIR = {"spot": torch.arange(N) % 5, "region": torch.arange(N) // 4}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TRUTH = {name: rand(num_nodes, G, seed=10 + num_nodes) for name, num_nodes in M.items()}


@pytest.fixture
def graph() -> Subgraph:
    nothing = torch.zeros((2, 0), dtype=torch.long)
    features = torch.zeros(1)
    return Subgraph(nothing, {name: Context(features, features, nothing, PAIR[name]) for name in M})


@pytest.fixture
def predictions() -> Predictions:
    return Predictions(rand(N, G, seed=1), {name: rand(m, G, seed=m) for name, m in M.items()})


@pytest.fixture
def labels() -> Labels:
    return Labels(rand(N, G, seed=2), TRUTH)


def numpy_pcc(prediction: Tensor, truth: Tensor, over: str) -> float:
    p, t = prediction.numpy(), truth.numpy()
    if over == "bins":
        p, t = p.T, t.T
    return float(np.mean([1 - np.corrcoef(p[i], t[i])[0, 1] for i in range(len(p))]))


@pytest.mark.parametrize("over", ["bins", "genes"])
def test_equals_equations_3_to_5(predictions: Predictions, labels: Labels, graph: Subgraph, over: Any) -> None:
    config = LossConfig(
        lambda_fine=0.7,
        lambda_context=0.3,
        lambda_consistency=0.2,
        gamma_prediction=0.9,
        gamma_consistency=0.4,
        pcc_over=over,
    )
    p, y = predictions, labels
    l_p = float(np.square(p.fine.numpy() - y.fine.numpy()).mean()) + 0.7 * numpy_pcc(p.fine, y.fine, over)
    l_p += 0.3 * sum([numpy_pcc(p.contexts[name], TRUTH[name], over) for name in M])
    l_c = 0.2 * sum([numpy_pcc(p.fine, p.contexts[name][PAIR[name]], over) for name in M])
    loss, parts = magnet_loss(p, y, graph=graph, config=config)
    assert loss.item() == pytest.approx(0.9 * l_p + 0.4 * l_c, rel=1e-5)
    assert set(parts) == {"mse", "pcc_fine", "pcc_spot", "pcc_region", "consistency_spot", "consistency_region"}
    assert parts["pcc_spot"].item() == pytest.approx(numpy_pcc(p.contexts["spot"], TRUTH["spot"], over), rel=1e-6)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_a_likelihood_replaces_the_squared_error_and_nothing_else(
    predictions: Predictions, labels: Labels, graph: Subgraph, likelihood: Any
) -> None:
    counts = torch.poisson(3 * rand(N, G, seed=5), generator=torch.Generator().manual_seed(6))
    library, dispersion = counts.sum(dim=1), rand(G, seed=7)
    counted = Labels(labels.fine, labels.contexts, counts=counts, library=library, dispersion=dispersion, scale=20.0)
    config = LossConfig(gamma_prediction=0.9)
    squared, squared_parts = magnet_loss(predictions, counted, graph=graph, config=config)
    loss, parts = magnet_loss(predictions, counted, graph=graph, config=config.changed(likelihood=likelihood))
    mean = library.unsqueeze(1) / 20.0 * torch.expm1(torch.nn.functional.softplus(predictions.fine, beta=8))
    expected = mean - counts * mean.log()
    if likelihood == "negative_binomial":
        expected = (counts + 1 / dispersion) * (1 + dispersion * mean).log() - counts * mean.log()
    assert parts[likelihood].item() == pytest.approx(expected.mean().item())
    assert (loss - squared).item() == pytest.approx(0.9 * (expected.mean() - parts["mse"]).item())
    assert {name: part for name, part in parts.items() if name != likelihood} == squared_parts


def test_halo_nodes_have_no_likelihood_either(predictions: Predictions, labels: Labels, graph: Subgraph) -> None:
    halo = torch.arange(8, N)
    counts, library = rand(N, G, seed=5).round(), torch.full((N,), 50.0)
    masked = Labels(labels.fine.index_fill(0, halo, torch.nan), counts=counts, library=library)
    prediction = predictions.fine.requires_grad_()
    config = LossConfig(likelihood="poisson", lambda_fine=0.0, consistency=False)
    loss, _ = magnet_loss(Predictions(prediction), masked, graph=graph, config=config)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert torch.equal(gradient.any(dim=1), torch.arange(N) < 8)


@pytest.mark.parametrize(
    ("likelihood", "given", "absent"),
    [
        ("poisson", {}, "counts, library"),
        ("poisson", {"counts": torch.ones(N, G)}, "library"),
        ("negative_binomial", {"counts": torch.ones(N, G), "library": torch.ones(N)}, "dispersion"),
    ],
    ids=str,
)
def test_a_likelihood_without_counts_is_refused(
    predictions: Predictions, labels: Labels, graph: Subgraph, likelihood: Any, given: dict[str, Any], absent: str
) -> None:
    with pytest.raises(MagnetError, match=f"loss.likelihood={likelihood}: expected .* found no {absent}; set"):
        magnet_loss(predictions, Labels(labels.fine, **given), graph=graph, config=LossConfig(likelihood=likelihood))


def test_counts_of_another_panel_are_refused(predictions: Predictions, labels: Labels, graph: Subgraph) -> None:
    other = Labels(labels.fine, counts=torch.ones(N, G - 1), library=torch.ones(N))
    with pytest.raises(MagnetError, match="labels of the shape"):
        magnet_loss(predictions, other, graph=graph, config=LossConfig(likelihood="poisson"))


def test_defaults_are_the_papers() -> None:
    config = LossConfig()
    assert (config.lambda_fine, config.lambda_context, config.lambda_consistency) == (0.8, 0.25, 0.1)
    assert (config.gamma_prediction, config.gamma_consistency) == (1.0, 0.25)
    assert config.likelihood == "mse"


def test_consistency_compares_predictions(predictions: Predictions, labels: Labels, graph: Subgraph) -> None:
    agreeing = Predictions(predictions.contexts["spot"][PAIR["spot"]], {"spot": predictions.contexts["spot"]})
    _, parts = magnet_loss(agreeing, labels, graph=graph, config=LossConfig())
    assert parts["consistency_spot"].item() == pytest.approx(0.0, abs=1e-6)
    other_truth = Labels(labels.fine.flip(1), {name: y.flip(1) for name, y in TRUTH.items()})
    _, before = magnet_loss(predictions, labels, graph=graph, config=LossConfig())
    _, after = magnet_loss(predictions, other_truth, graph=graph, config=LossConfig())
    assert before["consistency_spot"] == after["consistency_spot"]
    assert before["pcc_spot"] != after["pcc_spot"]


def test_consistency_can_be_switched_off(predictions: Predictions, labels: Labels, graph: Subgraph) -> None:
    loss, parts = magnet_loss(predictions, labels, graph=graph, config=LossConfig(consistency=False))
    assert not any(name.startswith("consistency") for name in parts)
    expected = parts["mse"] + 0.8 * parts["pcc_fine"] + 0.25 * (parts["pcc_spot"] + parts["pcc_region"])
    torch.testing.assert_close(loss, expected)


def test_a_level_without_labels_has_no_prediction_loss(
    predictions: Predictions, labels: Labels, graph: Subgraph
) -> None:
    for contexts in ({"region": TRUTH["region"]}, {"region": TRUTH["region"], "spot": None}):
        _, parts = magnet_loss(predictions, Labels(labels.fine, contexts), graph=graph, config=LossConfig())
        assert "pcc_spot" not in parts
        assert {"pcc_region", "consistency_spot"} <= set(parts)


@pytest.mark.parametrize("over", ["bins", "genes"])
def test_genes_that_were_not_measured_are_left_out(
    predictions: Predictions, labels: Labels, graph: Subgraph, over: Any
) -> None:
    config = LossConfig(pcc_over=over)
    known = torch.tensor([0, 1, 3, 4, 6, 7, 8])

    def blank(values: Tensor) -> Tensor:
        return values.index_fill(1, torch.tensor([2, 5]), torch.nan)

    masked = Labels(blank(labels.fine), {name: blank(y) for name, y in TRUTH.items()})
    leaves = [predictions.fine, *predictions.contexts.values()]
    for leaf in leaves:
        leaf.requires_grad_()
    loss, _ = magnet_loss(predictions, masked, graph=graph, config=config)
    gradients = torch.autograd.grad(loss, leaves)
    only_known = magnet_loss(
        Predictions(predictions.fine[:, known], {n: p[:, known] for n, p in predictions.contexts.items()}),
        Labels(labels.fine[:, known], {n: y[:, known] for n, y in TRUTH.items()}),
        graph=graph,
        config=config,
    )[0]
    torch.testing.assert_close(loss, only_known)
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert not gradient[:, [2, 5]].any()
        assert gradient[:, known].all()


def test_halo_nodes_have_no_loss(predictions: Predictions, labels: Labels, graph: Subgraph) -> None:
    """Rows of NaN, and the regions that only they are paired with, add nothing."""
    halo = Labels(labels.fine.index_fill(0, torch.arange(8, N), torch.nan), labels.contexts)
    core_graph = Subgraph(graph.edges, {n: dataclasses.replace(c, pair=c.pair[:8]) for n, c in graph.contexts.items()})
    config = LossConfig(pcc_over="genes")
    core = Predictions(predictions.fine[:8], predictions.contexts)
    with_halo, halo_parts = magnet_loss(predictions, halo, graph=graph, config=config)
    without, _ = magnet_loss(core, Labels(labels.fine[:8], labels.contexts), graph=core_graph, config=config)
    torch.testing.assert_close(with_halo, without)
    used = slice(0, 2)  # regions 0 and 1; region 2 is paired with fine nodes 8 to 11
    expected = numpy_pcc(predictions.contexts["region"][used], TRUTH["region"][used], "genes")
    assert halo_parts["pcc_region"].item() == pytest.approx(expected, rel=1e-6)


def test_a_subgraph_without_any_label_has_loss_zero(predictions: Predictions, graph: Subgraph) -> None:
    predictions.fine.requires_grad_()
    nothing = Labels(torch.full((N, G), torch.nan, dtype=torch.float64))
    loss, _ = magnet_loss(predictions, nothing, graph=graph, config=LossConfig())
    assert loss.item() == 0.0
    assert not torch.autograd.grad(loss, predictions.fine)[0].any()


@pytest.mark.parametrize("over", ["bins", "genes"])
def test_constant_truth_is_left_out(over: Any) -> None:
    prediction, truth = rand(6, 5, seed=3), rand(6, 5, seed=4)
    constant = truth.clone()
    if over == "genes":
        constant[2] = 0.1
        rows, columns = [0, 1, 3, 4, 5], [0, 1, 2, 3, 4]
    else:
        constant[:, 2] = 0.1
        rows, columns = [0, 1, 2, 3, 4, 5], [0, 1, 3, 4]
    for dtype in (torch.float32, torch.float64):
        loss = pcc_loss(prediction.to(dtype), constant.to(dtype), over=over)
        assert loss.item() == pytest.approx(
            numpy_pcc(prediction[rows][:, columns], truth[rows][:, columns], over), rel=1e-5
        )


@pytest.mark.parametrize("over", ["bins", "genes"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_prediction_is_uncorrelated_with_a_finite_gradient(over: Any, dtype: torch.dtype) -> None:
    prediction = torch.full((6, 5), 0.3, dtype=dtype, requires_grad=True)
    loss = pcc_loss(prediction, rand(6, 5).to(dtype), over=over)
    assert loss.item() == pytest.approx(1.0, abs=1e-3)
    assert torch.autograd.grad(loss, prediction)[0].isfinite().all()


def test_correlation_ignores_offset_and_scale() -> None:
    truth = rand(6, 50)
    assert pcc_loss(3 * truth + 7, truth, over="genes").item() == pytest.approx(0.0, abs=1e-6)
    assert pcc_loss(-truth, truth, over="bins").item() == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("over", ["bins", "genes"])
def test_gradient_is_that_of_the_formula(over: Any) -> None:
    prediction = rand(6, 5, seed=5)
    truth = rand(6, 5, seed=6)
    prediction[0], truth[1], truth[2, 3], truth[:, 4] = 0.2, 0.5, torch.nan, 0.5
    assert torch.autograd.gradcheck(
        lambda p: pcc_loss(p, truth, over=over), (prediction.requires_grad_(),), eps=1e-7, atol=1e-3, rtol=1e-3
    )


def test_consistency_pulls_both_sides(graph: Subgraph, predictions: Predictions) -> None:
    fine, spot = predictions.fine.requires_grad_(), predictions.contexts["spot"].requires_grad_()
    config = LossConfig(gamma_prediction=0.0)
    loss, _ = magnet_loss(Predictions(fine, {"spot": spot}), Labels(rand(N, G)), graph=graph, config=config)
    of_fine, of_spot = torch.autograd.grad(loss, (fine, spot))
    assert of_fine.all()
    assert of_spot.all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions_are_summed_in_float32(dtype: torch.dtype) -> None:
    prediction = (rand(8, 250) + 4).to(dtype)
    truth = rand(8, 250, seed=1).float()
    loss = pcc_loss(prediction, truth, over="genes")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(numpy_pcc(prediction.double(), truth.double(), "genes"), rel=1e-4)
    assert mse_loss(prediction, truth).dtype == torch.float32


def test_labels_of_another_panel_are_refused() -> None:
    with pytest.raises(MagnetError, match=r"expected labels of the shape .* \(4, 3\), found \(4, 1\)"):
        pcc_loss(rand(4, 3), rand(4, 1), over="genes")
    with pytest.raises(MagnetError, match="labels of the shape"):
        mse_loss(rand(4, 3), rand(4, 1))


@pytest.mark.parametrize(
    "wrong", [{"likelihood": "nb"}, {"pcc_over": "nodes"}, {"lambda_fine": -1.0}, {"gamma_consistency": float("nan")}]
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MagnetError, match=r"loss\."):
        LossConfig(**wrong)
