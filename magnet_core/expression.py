"""From raw counts to what a model learns: normalised expression of the panel (paper section 3, as TRIPLEX has it).

In: raw counts (N, G) CSR and the panel's columns. Out: float32 (N, P), proportional to the library, then log.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from magnet_core.records import Genes
from magnet_core.settings.normalise import NormaliseConfig

# N rows, G genes, P panel genes


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
