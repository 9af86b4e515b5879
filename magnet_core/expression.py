"""From raw counts to what a model learns: the gene panel and the normalisation.

In: raw counts (N, G) CSR. Out: a panel of genes chosen on training slides only (paper section 3: the 250 genes of
highest mean), and normalised expression float32 (N, P): proportional to the library, then log (TRIPLEX's, section 3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from magnet_core.errors import MagnetError
from magnet_core.records import Genes
from magnet_core.registry import near_names

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


def choose_panel(
    means: Mapping[str, np.ndarray], genes: Mapping[str, Genes], *, size: int, include: Sequence[str] = ()
) -> Genes:
    """Choose the `size` genes of highest mean raw count over the training slides.

    `means` and `genes` hold one entry a *training* slide: mean counts (G,) of its rows, and its gene table. Only genes
    measured on every one of them are eligible; slides weigh the same; ties go by gene id. Genes to `include`, by name
    or id, are among them whatever their mean.
    """
    shared = set.intersection(*(set(table.ids.tolist()) for table in genes.values()))
    ids = np.array(sorted(shared), dtype=np.str_)
    if len(ids) < size:
        raise MagnetError(
            "gene panel",
            expected=f"{size} genes measured on all {len(genes)} training slides",
            found=f"{len(ids)} shared genes",
            remedy="ask for a smaller panel, or check that the gene ids are of one kind",
        )
    total = np.zeros(len(ids))
    for slide_id, table in genes.items():
        total += means[slide_id][columns_of(table, ids)]
    first = next(iter(genes.values()))
    names = first.names[columns_of(first, ids)]
    wanted = np.isin(ids, include) | np.isin(names, include)
    if unknown := set(include) - {*ids[wanted].tolist(), *names[wanted].tolist()}:
        raise MagnetError(
            "data.include",
            expected="genes measured on all training slides",
            found=", ".join(sorted(unknown)),
            remedy=near_names(min(unknown), set(names.tolist())),
        )
    order = np.lexsort((ids, -total))
    best = np.concatenate([np.flatnonzero(wanted), order[~wanted[order]]])[:size]
    best = best[np.lexsort((ids[best], -total[best]))]
    return Genes(ids[best], names[best])


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
