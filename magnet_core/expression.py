"""From raw counts to what a model learns: normalised expression of the panel (paper section 3, as TRIPLEX has it).

In: raw counts (N, G) CSR and the panel's columns. Out: float32 (N, P), proportional to the library, then log.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from magnet_core.errors import MagnetError
from magnet_core.records import Genes

# N rows, G genes, P panel genes


@dataclass(frozen=True)
class NormaliseConfig:
    """How raw counts become expression.

    library "panel": a row's total is taken over the panel; "all": over all genes; "none": counts are not scaled
    scale   what a row's total is scaled to
    log     log(1 + value) afterwards
    """

    library: Literal["panel", "all", "none"] = "panel"
    scale: float = 1e4
    log: bool = True

    def __post_init__(self) -> None:
        if self.library not in ("panel", "all", "none"):
            raise MagnetError(
                "normalise.library",
                expected="one of panel, all, none",
                found=f"'{self.library}'",
                remedy="change the setting",
            )
        if not self.scale > 0:
            raise MagnetError(
                "normalise.scale", expected="a positive number", found=str(self.scale), remedy="change the setting"
            )


def columns_of(genes: Genes, ids: np.ndarray | Sequence[str]) -> np.ndarray:
    """Column of each gene id in a slide's gene table, (P,) int64, -1 where the slide did not measure it."""
    order = np.argsort(genes.ids)
    position = np.searchsorted(genes.ids, ids, sorter=order).clip(max=len(genes) - 1)
    column = order[position]
    return np.where(genes.ids[column] == np.asarray(ids), column, -1)


def expression(counts: sparse.csr_matrix, columns: np.ndarray, config: NormaliseConfig) -> np.ndarray:
    """Normalised expression of the panel, float32 (N, P), dense over the panel only.

    `columns` (P,) come from `columns_of`; a gene that was not measured (-1) is NaN in every row and counts for no
    library. A row without a single count is 0 everywhere.
    """
    measured = columns >= 0
    panel = np.full((counts.shape[0], len(columns)), np.nan, dtype=np.float32)
    panel[:, measured] = counts[:, columns[measured]].toarray()
    if config.library != "none":
        total = np.nansum(panel, axis=1) if config.library == "panel" else np.asarray(counts.sum(axis=1)).ravel()
        panel *= (config.scale / np.maximum(total, 1)).astype(np.float32)[:, None]
    return np.log1p(panel) if config.log else panel
