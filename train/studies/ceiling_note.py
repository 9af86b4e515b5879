"""What a reader of the noise ceiling has to know, in words: that it is an upper bound, and how far it may lie too high.

In: `genes.parquet` of a table. Out: sentences for its legend and its page.
"""

from collections.abc import Iterator

import polars as pl

from train.evaluation.scores import LOW_CEILING
from train.studies.numbers import number

BOUND = "an upper bound, as only the Poisson noise of counts is taken for noise"


def low_ceiling_note(genes: pl.DataFrame) -> str:
    """Say by group how low the ceiling would be if over-dispersion were noise; nothing where that is not known."""
    said = [
        f"{number(low)} at {group}, not {number(ceiling)}, over {num_known} of {num_genes} genes"
        for group, ceiling, low, num_known, num_genes in _means(genes)
    ]
    if not said:
        return ""
    return (
        "If all that differs between touching bins were noise, the ceiling would be about "
        f"{'; '.join(said)} (those whose counts tell their over-dispersion; an estimate, by which nothing is divided)."
    )


def _means(genes: pl.DataFrame) -> Iterator[tuple[str, float, float, int, int]]:
    """Group, ceiling and low ceiling over the genes that have both, as means over genes, then slides, then folds.

    With each stand how many genes have both somewhere, and how many have a ceiling.
    """
    if not {"ceiling", LOW_CEILING} <= set(genes.columns):
        return
    both = [pl.col("ceiling", LOW_CEILING).cast(pl.Float64).fill_nan(None)]
    place = ["group", "fold", "slide_id"]
    of_genes = genes.select(*place, "gene_id", *both).drop_nulls("ceiling")
    known = of_genes.drop_nulls().unique([*place, "gene_id"], maintain_order=True)
    means = known
    for depth in (3, 2, 1):
        means = means.group_by(place[:depth], maintain_order=True).agg(pl.col("ceiling", LOW_CEILING).mean())
    for group, ceiling, low in means.iter_rows():
        yield group, ceiling, low, *(_num_genes(table, group) for table in (known, of_genes))


def _num_genes(genes: pl.DataFrame, group: str) -> int:
    return genes.filter(pl.col("group") == group)["gene_id"].n_unique()
