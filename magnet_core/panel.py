"""The gene panel of a fold: which genes are predicted, chosen on its training slides only.

In: statistics of each training slide, and its gene table. Out: `Genes`: those of highest mean count (paper section 3,
after ST-Net), or those that vary most (the HEST benchmark).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from magnet_core.errors import MagnetError
from magnet_core.expression import columns_of
from magnet_core.records import Genes
from magnet_core.registry import near_names

# N rows of a slide, G genes of a slide, E genes measured on every slide, P panel genes

DETECTED_SHARE = 0.1  # of the rows of every slide, for a gene of the most variable ones


@dataclass(frozen=True)
class LogStatistics:
    """Of log(1 + count) on one slide: rows N; sum, sum of squares and number of rows above 0 of each gene, (G,)."""

    rows: int
    total: np.ndarray
    squares: np.ndarray
    detected: np.ndarray


def choose_panel(
    means: Mapping[str, np.ndarray], genes: Mapping[str, Genes], *, size: int, include: Sequence[str] = ()
) -> Genes:
    """Choose the `size` genes of highest mean raw count over the training slides.

    `means` and `genes` hold one entry a *training* slide: mean counts (G,) of its rows, and its gene table. Only genes
    measured on every one of them are eligible; slides weigh the same; ties go by gene id. Genes to `include`, by name
    or id, are among them whatever their mean.
    """
    ids = shared_genes(genes)
    total = np.zeros(len(ids))
    for slide_id, table in genes.items():
        total += means[slide_id][columns_of(table, ids)]
    return _best(ids, total, genes, size=size, include=include)


def choose_variable_panel(
    statistics: Mapping[str, LogStatistics], genes: Mapping[str, Genes], *, size: int, include: Sequence[str] = ()
) -> Genes:
    """Choose the `size` genes whose log(1 + count) varies most over the rows of all training slides.

    Genes below `DETECTED_SHARE` of the rows of a slide are not eligible, unless they are to be included. Otherwise as
    `choose_panel`.
    """
    ids = shared_genes(genes)
    rows, total, squares, often = 0, np.zeros(len(ids)), np.zeros(len(ids)), np.ones(len(ids), dtype=bool)
    for slide_id, table in genes.items():
        columns, of_slide = columns_of(table, ids), statistics[slide_id]
        rows += of_slide.rows
        total += of_slide.total[columns]
        squares += of_slide.squares[columns]
        often &= of_slide.detected[columns] >= DETECTED_SHARE * of_slide.rows
    variance = squares / rows - (total / rows) ** 2
    return _best(ids, np.where(often, variance, -np.inf), genes, size=size, include=include)


def shared_genes(genes: Mapping[str, Genes]) -> np.ndarray:
    """Ids (E,) of the genes measured on every slide, sorted."""
    shared = set.intersection(*(set(table.ids.tolist()) for table in genes.values()))
    return np.array(sorted(shared), dtype=np.str_)


def included_genes(ids: np.ndarray, genes: Mapping[str, Genes], *, size: int, include: Sequence[str]) -> np.ndarray:
    """Tell which of the shared genes (E,) are to be included; one that is not among them, or too many, is an error."""
    names = _names(ids, genes)
    included: np.ndarray = np.isin(ids, include) | np.isin(names, include)
    if unknown := set(include) - {*ids[included].tolist(), *names[included].tolist()}:
        raise MagnetError(
            "data.include",
            expected="genes measured on all training slides",
            found=", ".join(sorted(unknown)),
            remedy=near_names(min(unknown), set(names.tolist())),
        )
    if included.sum() > size:
        raise MagnetError(
            "data.include",
            expected=f"at most as many genes as the panel has, {size}",
            found=f"{included.sum()}",
            remedy=f"raise data.panel to {included.sum()} or more, or name a gene of several ids by one of them",
        )
    return included


def _names(ids: np.ndarray, genes: Mapping[str, Genes]) -> np.ndarray:
    first = next(iter(genes.values()))
    names: np.ndarray = first.names[columns_of(first, ids)]
    return names


def _best(
    ids: np.ndarray, score: np.ndarray, genes: Mapping[str, Genes], *, size: int, include: Sequence[str]
) -> Genes:
    """Return the genes to include and those of highest score (E,), best first; a score of -inf is not eligible."""
    included = included_genes(ids, genes, size=size, include=include)
    eligible = int((included | (score > -np.inf)).sum())
    if eligible < size:
        raise MagnetError(
            "gene panel",
            expected=f"{size} genes measured on all {len(genes)} training slides",
            found=f"{eligible} shared genes",
            remedy="ask for a smaller panel with data.panel, or check that the gene ids are of one kind",
        )
    order = np.lexsort((ids, -score))
    best = np.concatenate([np.flatnonzero(included), order[~included[order]]])[:size]  # with all to include
    best = best[np.lexsort((ids[best], -score[best]))]
    return Genes(ids[best], _names(ids, genes)[best])
