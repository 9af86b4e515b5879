"""Single genes of one system: each gene's PCC against its noise ceiling (upper bound), the best and the worst.

In: `genes.parquet` of a study or a fit. Out: blocks.
"""

from collections.abc import Sequence

import polars as pl

from train.report.figures import Plot, scatter
from train.report.parts import Block, Table, Tables
from train.studies.numbers import number

SHOWN = 15
COLUMNS = ("slide_id", "gene_id", "gene_name", "pcc")


def by_gene(table: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each gene, best first: mean PCC and ceiling over its test slides, their ratio, null if unknown.

    A slide on which the gene does not vary has no PCC and is left out.
    """
    if "ceiling" not in table.columns:
        table = table.with_columns(ceiling=pl.lit(None, dtype=pl.Float64))
    measured = table.with_columns(pl.col("pcc", "ceiling").cast(pl.Float64).fill_nan(None)).drop_nulls("pcc")
    return (
        measured.group_by("gene_id", "gene_name", maintain_order=True)
        .agg(pl.col("pcc", "ceiling").mean(), slides=pl.col("slide_id").n_unique())
        .with_columns(share=pl.when(pl.col("ceiling") > 0).then(pl.col("pcc") / pl.col("ceiling")))
        .sort("pcc", descending=True, maintain_order=True)
    )


def against_ceiling(title: str, genes: pl.DataFrame) -> Plot | None:
    """Plot the PCC of each gene over its noise ceiling; None where no ceiling is known."""
    with_ceiling = genes.drop_nulls("ceiling")
    if with_ceiling.is_empty():
        return None
    points = [
        (row["ceiling"], row["pcc"], f"{row['gene_name']}: PCC {row['pcc']:.3f}, ceiling at most {row['ceiling']:.3f}")
        for row in with_ceiling.iter_rows(named=True)
    ]
    return scatter(title, points, x_title="noise ceiling (upper bound)", y_title="PCC", limit="PCC = noise ceiling")


def against_system(title: str, ours: pl.DataFrame, other: pl.DataFrame, *, name: str, other_name: str) -> Plot | None:
    """Plot the PCC of each gene by one system over that by another; None where they share no gene."""
    both = ours.join(other.select("gene_id", pl.col("pcc").alias("other")), on="gene_id", maintain_order="left")
    if both.is_empty():
        return None
    points = [
        (row["other"], row["pcc"], f"{row['gene_name']}: {name} {row['pcc']:.3f}, {other_name} {row['other']:.3f}")
        for row in both.iter_rows(named=True)
    ]
    return scatter(title, points, x_title=f"PCC, {other_name}", y_title=f"PCC, {name}", limit="as good as each other")


def note_on(plots: Sequence[Plot]) -> str:
    """What a point is, and how it is named."""
    named = " Names show when the pointer rests on a point." if any(plot.marks for plot in plots) else ""
    return f"A gene is the mean over its test slides.{named}"


def best_and_worst(title: str, genes: pl.DataFrame) -> list[Block]:
    """The genes predicted best and worst; all of them in one table where they are few."""
    if genes.is_empty():
        return []
    if len(genes) <= 2 * SHOWN:
        return [gene_table(f"Genes, best first: {title}", genes)]
    best, worst = genes.head(SHOWN), genes.tail(SHOWN).reverse()
    tables = [gene_table(f"the {SHOWN} best", best), gene_table(f"the {SHOWN} worst", worst)]
    return [Tables(f"Genes predicted best and worst: {title}", tables, f"Of {len(genes)} genes.")]


def gene_table(heading: str, genes: pl.DataFrame) -> Table:
    """PCC, ceiling and share by gene."""
    rows = [
        [row["gene_name"], number(row["pcc"]), number(row["ceiling"]), number(row["share"], 2), str(row["slides"])]
        for row in genes.iter_rows(named=True)
    ]
    headings = ["gene", "PCC", "ceiling (upper bound)", "share", "slides"]
    if genes["ceiling"].null_count() == len(genes):
        keep = (0, 1, 4)
        headings, rows = [headings[i] for i in keep], [[row[i] for i in keep] for row in rows]
    return Table(heading, headings, rows)
