"""What the commands that make a table show of it."""

from typing import TYPE_CHECKING

import typer

from magnet_core.engine.shard import Shard

if TYPE_CHECKING:
    from train.pipeline import TableResult
    from train.studies.cell import Results


def show_table(result: "TableResult") -> None:
    """Print a table and where it is; exit code 1 if a cell of it failed."""
    typer.echo(f"\n{result.text}")
    typer.echo(f"tables: {result.folder} (table.txt, .csv, .md, .tex, figure.png, genes.parquet, slides.parquet)")
    if result.faults:
        raise typer.Exit(1)


def show_part(part: Shard, results: "Results") -> None:
    """Say how many cells of a part there are; exit code 1 if one failed."""
    typer.echo(
        f"part {part}: {len(results.cells)} cells are there; once all parts are, leave --shard out for the table"
    )
    if results.faults:
        raise typer.Exit(1)
