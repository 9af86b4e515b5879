"""Metrics of a system on the test slides of a fold, gene by gene.

In: predictions and truth by slide. Out: `genes.parquet`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from magnet_core.files import replacing
from magnet_core.metrics import Metrics, evaluate
from magnet_core.records import Genes

# N fine rows of a slide, P panel genes

GENES = "genes.parquet"
DISPERSION, LOW_CEILING = "dispersion", "ceiling_low"  # columns of a ceiling, which cells of before lack


def score(predictions: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> dict[str, Metrics]:
    """Compare predictions with truth, both (N, P) by slide id."""
    return {slide_id: evaluate(predictions[slide_id], truth[slide_id]) for slide_id in predictions}


def genes_table(system: str, scores: Mapping[str, Metrics], panel: Genes) -> pl.DataFrame:
    """One row for each slide and gene of a system; `scores` by slide id."""
    return pl.concat(
        pl.DataFrame(
            {
                "system": system,
                "slide_id": slide_id,
                "gene_id": panel.ids,
                "gene_name": panel.names,
                "mse": metrics.gene_mse,
                "mae": metrics.gene_mae,
                "pcc": metrics.gene_pcc,
            }
        )
        for slide_id, metrics in scores.items()
    )


def write_genes(path: Path, table: pl.DataFrame) -> None:
    """Write the per-gene table as parquet, whole or not at all."""
    with replacing(path) as partial:
        table.write_parquet(partial)
