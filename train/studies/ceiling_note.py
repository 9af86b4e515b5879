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
    said = [f"{low} at {group}, not {ceiling}" for group, low, ceiling in _means(genes)]
    if not said:
        return ""
    return (
        "If all that differs between touching bins were noise, the ceiling would be about "
        f"{'; '.join(said)} (an estimate from the counts' over-dispersion, by which nothing is divided)."
    )


def _means(genes: pl.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Group, low ceiling and ceiling, both over the genes that have both: means over genes, then slides, then folds."""
    if not {"ceiling", LOW_CEILING} <= set(genes.columns):
        return
    both = [pl.col("ceiling", LOW_CEILING).cast(pl.Float64).fill_nan(None)]
    place = ["group", "fold", "slide_id"]
    known = genes.select(*place, "gene_id", *both).drop_nulls().unique([*place, "gene_id"], maintain_order=True)
    for depth in (3, 2, 1):
        known = known.group_by(place[:depth], maintain_order=True).agg(pl.col("ceiling", LOW_CEILING).mean())
    for group, ceiling, low in known.iter_rows():
        yield group, number(low), number(ceiling)
