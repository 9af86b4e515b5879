"""Metrics of every system on the test slides of a fold: one table, one parquet of genes, one summary.

In: predictions and truth by slide. Out: `summary.json`, `genes.parquet`, and the table that is shown on screen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from tabulate import tabulate

from magnet_core.files import replacing
from magnet_core.metrics import Metrics, combine, evaluate
from magnet_core.records import Genes
from train.evaluation.system_names import TITLES

# N fine rows of a slide, P panel genes

COLUMNS = {"mse": "MSE", "mae": "MAE", "pcc_bin": "PCC per bin", "pcc_gene": "PCC per gene"}


@dataclass(frozen=True)
class SystemScore:
    """One system on the test slides: metrics by slide, and their mean."""

    slides: Mapping[str, Metrics]

    @property
    def mean(self) -> Metrics:
        """Mean over slides, each weighing the same."""
        return combine(list(self.slides.values()))


def score(predictions: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> SystemScore:
    """Compare predictions with truth, both (N, P) by slide id."""
    return SystemScore({slide_id: evaluate(predictions[slide_id], truth[slide_id]) for slide_id in predictions})


def metrics_row(metrics: Metrics) -> dict[str, float]:
    """Name the four metrics as they stand in summary.json."""
    return {column: getattr(metrics, column) for column in COLUMNS}


def genes_table(scores: Mapping[str, SystemScore], panel: Genes) -> pl.DataFrame:
    """One row for each system, slide and gene."""
    return pl.concat(
        pl.DataFrame(
            {
                "system": name,
                "slide_id": slide_id,
                "gene_id": panel.ids,
                "gene_name": panel.names,
                "mse": metrics.gene_mse,
                "mae": metrics.gene_mae,
                "pcc": metrics.gene_pcc,
            }
        )
        for name, result in scores.items()
        for slide_id, metrics in result.slides.items()
    )


def write_genes(path: Path, table: pl.DataFrame) -> None:
    """Write the per-gene table as parquet, whole or not at all."""
    with replacing(path) as partial:
        table.write_parquet(partial)


def text_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Lay the summary out as people read it, one system a line."""
    rows = [[TITLES.get(name, name), *(values[column] for column in COLUMNS)] for name, values in scores.items()]
    return str(tabulate(rows, ["", *COLUMNS.values()], tablefmt="plain", floatfmt=".4f", numalign="right"))
