"""Likelihoods of raw counts, in the place of the squared error of Eq. 3.

In: predictions of normalised log expression (N, G), raw counts of the same nodes and genes, and the library of each
node. Out: the mean negative log-likelihood of a count, without the terms that do not depend on the prediction.

What a model predicts keeps its meaning, log1p(scale · count / library) of `magnet_core.expression`, and with it the
correlations and the metrics. Read backwards it is an expected count, library / scale · expm1(p): a bin of few counts
weighs less than one of many, which a squared error of normalised values turns round.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from magnet_core.errors import MagnetError

# N nodes, G genes

SHARPNESS = 8.0  # of the softplus that keeps rates positive; its value is 0.45 % above p at p = 0.5
LOG_LINEAR_BELOW = -2.0  # where softplus is exp(SHARPNESS · p) / SHARPNESS to the last digit of float32
SOFTPLUS_IS_LINEAR = 40.0  # beyond this argument, to the last digit of float64
LARGEST_LOG_MEAN = 12.0  # above it, at 160,000 counts of one gene in one spot, the mean grows linearly, not to infinity
DISPERSIONS = (1e-4, 1e1)  # from all but Poisson to a variance of 11 at a mean of 1


def log_mean_counts(prediction: Tensor, library: Tensor, *, scale: float) -> Tensor:
    """Logarithm of the expected counts (N, G) of predictions (N, G) at a library (N,), in at least float32.

    The mean is library / scale · expm1(s(p)) with s the softplus log(1 + exp(8 p)) / 8: smooth, above 0 for every p,
    and p itself from about 0.5 on. Below 0 its logarithm falls linearly, by 8 for each unit of p, so that a gene that
    was counted pulls a prediction up as strongly at p = -10 as at p = 0: a rate cannot die, as it would under a ReLU.
    """
    prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
    positive = F.softplus(prediction.clamp(min=LOG_LINEAR_BELOW), beta=SHARPNESS, threshold=SOFTPLUS_IS_LINEAR)
    log_rate = positive + torch.log(-torch.expm1(-positive))  # log(expm1(positive)), which does not overflow
    log_rate = log_rate - SHARPNESS * F.relu(LOG_LINEAR_BELOW - prediction)
    return log_rate + torch.log(library.to(prediction.dtype) / scale).unsqueeze(1)


def poisson_loss(prediction: Tensor, counts: Tensor, *, library: Tensor, scale: float) -> Tensor:
    """Mean of μ - y log μ over the counts (N, G) that are not NaN and whose library (N,) is above 0; 0 if none is."""
    measured, present, log_mean = _entries(prediction, counts, library, scale)
    return _mean(_exp(log_mean) - present * log_mean, measured)


def negative_binomial_loss(
    prediction: Tensor, counts: Tensor, *, library: Tensor, dispersion: Tensor, scale: float
) -> Tensor:
    """Mean of (y + 1/α) log(1 + αμ) - y log μ, over the same counts as `poisson_loss`, whose limit it is for small α.

    `dispersion` α (G,) is held fixed, within `DISPERSIONS`; the variance is μ + αμ².
    """
    _check_shape("dispersion", dispersion, counts.shape[1:])
    measured, present, log_mean = _entries(prediction, counts, library, scale)
    dispersion = dispersion.to(log_mean.dtype).clamp(*DISPERSIONS)
    spread = F.softplus(log_mean + torch.log(dispersion), threshold=SOFTPLUS_IS_LINEAR)  # log(1 + αμ)
    return _mean((present + 1.0 / dispersion) * spread - present * log_mean, measured)


def estimate_dispersion(counts: Sequence[sparse.csr_matrix], libraries: Sequence[np.ndarray]) -> np.ndarray:
    """Estimate the dispersion α of each gene by moments: float32 (G,), within `DISPERSIONS`.

    `counts` holds the raw panel counts (N, G) of each training slide, a gene that a slide did not measure as zeros,
    and `libraries` its libraries (N,). With mean m = library · rate, the rate being that of the gene on the slide,
    E[(y - m)² - y] = α m²; both sides are summed over all rows. What makes rows differ is in α, tissue included, so it
    is an upper bound of the noise that is left once a model explains the tissue.
    """
    if not counts or len(counts) != len(libraries):
        raise MagnetError(
            "dispersion",
            expected="counts of one slide or more, each with its libraries",
            found=f"{len(counts)} of counts, {len(libraries)} of libraries",
            remedy="pass those of the training slides",
        )
    excess, squared_mean = np.zeros(counts[0].shape[1]), np.zeros(counts[0].shape[1])
    for slide_counts, library in zip(counts, libraries, strict=True):
        if slide_counts.shape != (len(library), len(excess)):
            raise MagnetError(
                "dispersion",
                expected=f"counts of {len(library)} rows, as many as libraries, and {len(excess)} genes",
                found=f"{slide_counts.shape[0]} rows and {slide_counts.shape[1]} genes",
                remedy="take both from the same slide and panel",
            )
        values = slide_counts.astype(np.float64)
        size = np.asarray(library, dtype=np.float64)
        total = np.asarray(values.sum(axis=0)).ravel()
        rate = total / max(size.sum(), 1.0)
        squares = np.asarray(values.multiply(values).sum(axis=0)).ravel()
        excess += squares - 2 * rate * (values.T @ size) + rate**2 * (size @ size) - total
        squared_mean += rate**2 * (size @ size)
    estimates = np.divide(excess, squared_mean, out=np.zeros_like(excess), where=squared_mean > 0)
    return estimates.clip(*DISPERSIONS).astype(np.float32)


def _entries(prediction: Tensor, counts: Tensor, library: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return which counts are measured, the counts with 0 elsewhere, and the log means; finite in every entry."""
    _check_shape("counts", counts, prediction.shape)
    _check_shape("library", library, prediction.shape[:1])
    has_library = library > 0  # not so for NaN
    log_mean = log_mean_counts(prediction, torch.where(has_library, library, scale), scale=scale)
    measured = ~counts.isnan() & has_library.unsqueeze(1)
    return measured, torch.where(measured, counts, 0.0).to(log_mean.dtype), log_mean


def _mean(values: Tensor, measured: Tensor) -> Tensor:
    return torch.where(measured, values, 0.0).sum() / measured.sum().clamp(min=1)


def _exp(logarithm: Tensor) -> Tensor:
    """Return exp, continued by its tangent beyond LARGEST_LOG_MEAN."""
    beyond = math.exp(LARGEST_LOG_MEAN) * F.relu(logarithm - LARGEST_LOG_MEAN)
    return logarithm.clamp(max=LARGEST_LOG_MEAN).exp() + beyond


def _check_shape(where: str, values: Tensor, expected: Sequence[int]) -> None:
    if tuple(values.shape) != tuple(expected):
        raise MagnetError(
            f"loss, {where}",
            expected=f"shape {tuple(expected)}, as the predictions",
            found=f"{tuple(values.shape)}",
            remedy="build labels from the panel and the nodes of the subgraph",
        )
