"""The hybrid loss: paper, section 2.3, Eq. 3 to 5.

In: the `Predictions` for a subgraph, the `Labels` of the same nodes, and the `Subgraph` for its pairing. Out: a scalar
loss and its unweighted parts. PCC(p, y) as a loss is 1 - Pearson's correlation, averaged.

    L_p = MSE(p_b, y_b) + Σ λ_i PCC(p_i, y_i)   over the fine level and the contexts      (Eq. 3)
    L_c = Σ λ PCC(p_b, p_i)                     over the contexts, p_i of the paired node (Eq. 4)
    L   = γ_1 L_p + γ_2 L_c                                                               (Eq. 5)

In the place of MSE(p_b, y_b) the negative log-likelihood of the raw counts can be had, see `magnet_core.likelihood`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from magnet_core.device import at_least_float32
from magnet_core.errors import MagnetError
from magnet_core.likelihood import negative_binomial_loss, poisson_loss
from magnet_core.model.batch import Predictions, Subgraph
from magnet_core.settings.loss import Likelihood, LossConfig, Over

# N fine nodes, M nodes of a context level, G genes

# A truth whose sd is below this part of its largest value is constant up to rounding: its correlation is not defined.
CONSTANT_TOLERANCE = 1e-5
# Added to variances (of log expression, about 0.1): bounds the gradient where a prediction is all but constant.
VARIANCE_FLOOR = 1e-8

OVER_DIM: dict[Over, int] = {"bins": 0, "genes": 1}  # the dimension of (N, G) along which the correlation runs
NEEDED: dict[Likelihood, tuple[str, ...]] = {  # of the labels, by likelihood
    "mse": (),
    "poisson": ("counts", "library"),
    "negative_binomial": ("counts", "library", "dispersion"),
}


@dataclass(frozen=True)
class Labels:
    """Normalised log expression of the nodes of a subgraph: the truth that `Predictions` is compared with.

    fine     (N, G)
    contexts by level (M, G), or None for a level that was not measured: it has no prediction loss

    A likelihood of raw counts needs these too, all of the fine level:

    counts     (N, G) raw counts of the panel
    library    (N,) what the counts were scaled by; `scale` where the normalisation does not scale
    dispersion (G,) of the negative binomial, see `estimate_dispersion`
    scale      what a library was scaled to

    NaN marks what was not measured, a gene on this slide or a whole row; it is left out of every term. Fine nodes that
    are there as halo only get a row of NaN. A count is left out too where `fine` is NaN or the library is 0.
    """

    fine: Tensor
    contexts: Mapping[str, Tensor | None] = field(default_factory=dict)
    counts: Tensor | None = None
    library: Tensor | None = None
    dispersion: Tensor | None = None
    scale: float = 1e4


def magnet_loss(
    predictions: Predictions, labels: Labels, *, graph: Subgraph, config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of Eq. 5 and its parts, unweighted and detached, by name.

    A context node counts in L_p only if a labelled fine node is paired with it: the others are there as neighbours.
    The parts are `mse`, whether it is fitted or not, the likelihood by its name, `pcc_fine`, and per context level
    `pcc_<level>` and `consistency_<level>`. Consistency is taken where the fine node is measured, and its gradient
    reaches both sides: a context without labels learns from it alone.
    """
    measured = ~labels.fine.isnan()  # (N, G)
    parts = {
        "mse": mse_loss(predictions.fine, labels.fine),
        "pcc_fine": pcc_loss(predictions.fine, labels.fine, over=config.pcc_over),
    }
    if config.likelihood != "mse":
        parts[config.likelihood] = likelihood_loss(predictions.fine, labels, likelihood=config.likelihood)
    loss_prediction = parts[config.likelihood] + config.lambda_fine * parts["pcc_fine"]
    loss_consistency = torch.zeros_like(loss_prediction)
    for name, predicted in predictions.contexts.items():
        pair = graph.contexts[name].pair
        truth = labels.contexts.get(name)
        if truth is not None:
            counted = _paired_nodes(pair, measured.any(dim=1), num_nodes=len(predicted))
            truth = truth.masked_fill(~counted.unsqueeze(1), torch.nan)
            parts[f"pcc_{name}"] = pcc_loss(predicted, truth, over=config.pcc_over)
            loss_prediction = loss_prediction + config.lambda_context * parts[f"pcc_{name}"]
        if config.consistency:
            paired = predicted.index_select(0, pair)  # (M, G) -> (N, G)
            parts[f"consistency_{name}"] = _pcc_loss(predictions.fine, paired, measured=measured, over=config.pcc_over)
            loss_consistency = loss_consistency + config.lambda_consistency * parts[f"consistency_{name}"]
    loss = config.gamma_prediction * loss_prediction + config.gamma_consistency * loss_consistency
    return loss, {name: part.detach() for name, part in parts.items()}


def likelihood_loss(prediction: Tensor, labels: Labels, *, likelihood: Likelihood) -> Tensor:
    """Mean negative log-likelihood of the fine level's raw counts; an error where the labels lack what it needs."""
    absent = [name for name in NEEDED[likelihood] if getattr(labels, name) is None]
    if absent:
        raise MagnetError(
            f"loss.likelihood={likelihood}",
            expected=f"labels with {', '.join(NEEDED[likelihood])}",
            found=f"no {', '.join(absent)}",
            remedy="set loss.likelihood=mse, or train on a store that holds raw counts",
        )
    assert labels.counts is not None
    assert labels.library is not None
    _check_shapes(prediction, labels.counts)
    counts = labels.counts.masked_fill(labels.fine.isnan(), torch.nan)
    if likelihood == "poisson":
        return poisson_loss(prediction, counts, library=labels.library, scale=labels.scale)
    assert labels.dispersion is not None
    return negative_binomial_loss(
        prediction, counts, library=labels.library, dispersion=labels.dispersion, scale=labels.scale
    )


def mse_loss(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error over the entries of `truth` (N, G) that are not NaN; 0 if there are none."""
    _check_shapes(prediction, truth)
    measured = ~truth.isnan()
    errors = torch.where(measured, at_least_float32(prediction) - truth, 0.0)
    return errors.square().sum() / measured.sum().clamp(min=1)


def pcc_loss(prediction: Tensor, truth: Tensor, *, over: Over) -> Tensor:
    """1 - Pearson's correlation of two (N, G) tensors, averaged over rows (`over="genes"`) or columns (`"bins"`).

    NaN entries of `truth` are left out, as are rows (columns) where the truth is constant or measured less than twice;
    with none left the loss is 0. A constant prediction has correlation 0 and a finite gradient.
    """
    return _pcc_loss(prediction, truth, measured=~truth.isnan(), over=over)


def _pcc_loss(prediction: Tensor, truth: Tensor, *, measured: Tensor, over: Over) -> Tensor:
    _check_shapes(prediction, truth)
    dim = OVER_DIM[over]
    counts = measured.sum(dim=dim, keepdim=True).clamp(min=1)
    centred_prediction, variance_prediction = _centre(prediction, measured, counts=counts, dim=dim)
    centred_truth, variance_truth = _centre(truth, measured, counts=counts, dim=dim)
    covariance = (centred_prediction * centred_truth).sum(dim=dim) / counts.squeeze(dim)
    correlation = covariance * ((variance_prediction + VARIANCE_FLOOR) * (variance_truth + VARIANCE_FLOOR)).rsqrt()

    magnitude = torch.where(measured, truth.detach().abs(), 0.0).amax(dim=dim)
    varies = variance_truth.detach() > (CONSTANT_TOLERANCE * magnitude).square()
    return torch.where(varies, 1.0 - correlation, 0.0).sum() / varies.sum().clamp(min=1)


def _centre(values: Tensor, measured: Tensor, *, counts: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return `values` less their mean, 0 where not measured, and their variance; both along `dim`."""
    present = torch.where(measured, at_least_float32(values), 0.0)
    mean = present.sum(dim=dim, keepdim=True) / counts
    centred = torch.where(measured, present - mean, 0.0)
    return centred, centred.square().sum(dim=dim) / counts.squeeze(dim)


def _paired_nodes(pair: Tensor, labelled: Tensor, *, num_nodes: int) -> Tensor:
    """Which of `num_nodes` context nodes have a labelled fine node paired with them: bool (M,)."""
    counts = torch.zeros(num_nodes, dtype=torch.long, device=pair.device)
    return counts.index_add(0, pair, labelled.long()) > 0


def _check_shapes(prediction: Tensor, truth: Tensor) -> None:
    if prediction.shape != truth.shape:
        raise MagnetError(
            "loss",
            expected=f"labels of the shape of the prediction, {tuple(prediction.shape)}",
            found=f"{tuple(truth.shape)}",
            remedy="build labels from the panel and the nodes of the subgraph",
        )
