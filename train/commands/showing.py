"""What the commands that make a table show of it."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from train.pipeline import TableResult


def show_table(result: "TableResult") -> None:
    """Print a table and where it is; exit code 1 if a cell of it failed."""
    typer.echo(f"\n{result.text}")
    typer.echo(f"tables: {result.folder} (table.txt, .csv, .md, .tex, figure.png, genes.parquet, slides.parquet)")
    if result.faults:
        raise typer.Exit(1)
