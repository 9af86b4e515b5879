"""Settings of the hybrid loss, see `magnet_core.losses`."""

from typing import ClassVar, Literal

from pydantic import Field

from magnet_core.settings.base import Settings

Over = Literal["bins", "genes"]
Likelihood = Literal["mse", "poisson", "negative_binomial"]


class LossConfig(Settings):
    """Weights of Eq. 3 to 5; the defaults are the paper's (section 3), equal for the spot and the region level.

    `pcc_over="bins"` correlates each gene over the nodes of the batch, which is what biologists look at; `"genes"`
    correlates each node's G genes, which is what the paper reports, and which the genes' means alone nearly satisfy.
    Correlations over bins do not see a gene's offset: a context level then learns none, and keeps what it started from.
    `consistency=False` is the ablation of Table 2. `likelihood` is what the fine level fits: log expression by squared
    error (the paper's), or raw counts as Poisson or negative binomial. A weight of 0 switches its part off.
    """

    table: ClassVar[str] = "loss"

    lambda_fine: float = Field(default=0.8, ge=0)
    lambda_context: float = Field(default=0.25, ge=0)
    lambda_consistency: float = Field(default=0.1, ge=0)
    gamma_prediction: float = Field(default=1.0, ge=0)
    gamma_consistency: float = Field(default=0.25, ge=0)
    pcc_over: Over = "bins"
    consistency: bool = True
    likelihood: Likelihood = "mse"
