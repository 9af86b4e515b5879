"""How well a prediction agrees with what was measured at the same places, where that is asked for and there.

In: values of a slide's rows, and its labels. Out: correlations, beside the noise ceiling of the same genes, which is an
upper bound.
"""

from dataclasses import dataclass

import numpy as np

from magnet_core.metrics import evaluate, nan_mean
from magnet_core.records import Genes
from magnet_core.settings.normalise import NormaliseConfig
from train.data.slide import Slide
from train.evaluation.ceilings import slide_ceiling

# N rows, P genes of the file


@dataclass(frozen=True)
class Agreement:
    """Means of Pearson's correlation: over genes, each over the rows of the slide, and over rows, each over genes.

    ceiling  mean over genes of an upper bound of what noise leaves to any predictor, see `magnet_core.ceiling`
    """

    pcc_gene: float
    pcc_bin: float
    ceiling: float

    def __str__(self) -> str:
        return (
            f"PCC with what was measured: {self.pcc_gene:.3f} per gene (noise ceiling at most {self.ceiling:.3f}), "
            f"{self.pcc_bin:.3f} per row"
        )

    @classmethod
    def of(
        cls, values: np.ndarray, labels: np.ndarray, slide: Slide, panel: Genes, columns: np.ndarray, *,
        normalise: NormaliseConfig,
    ) -> "Agreement":  # fmt: skip
        """Compare `values` with `labels`, both (N, P): those of `columns` (P,) of the run's panel."""
        metrics = evaluate(values, labels)
        ceiling = slide_ceiling(slide, panel, normalise)[columns]
        return cls(metrics.pcc_gene, metrics.pcc_bin, float(nan_mean(ceiling)))
