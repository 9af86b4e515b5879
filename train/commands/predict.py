"""The command `train predict`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_core.console import importing
from train.commands.options import split_names

if TYPE_CHECKING:
    from train.predict.slides import Written


def predict_command(
    run: Annotated[Path, typer.Argument(help="Folder of 'train fit', or of a cell of MagNet.")],
    slide: Annotated[list[str], typer.Option(help="Slide to predict; may be repeated; 'all': every one of the store.")],
    store: Annotated[Path | None, typer.Option(help="Store with the slides; left out: the run's own.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file; left out: RUN/predictions/SLIDE.h5ad.")] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format", help="Files to write, such as h5ad,parquet: h5ad, spatialdata, ome-tiff, geojson, parquet."
        ),
    ] = "h5ad",
    draw: Annotated[str | None, typer.Option(help="Genes that ome-tiff and geojson show, such as EPCAM,CD3E.")] = None,
    above: Annotated[
        str, typer.Option(help="Regions of geojson lie above this value, or above that of a share of rows.")
    ] = "90%",
    genes: Annotated[str | None, typer.Option(help="Keep these genes only, such as SGPP1,DPEP1.")] = None,
    measured: Annotated[bool, typer.Option("--measured", help="Add what was measured as a layer.")] = False,
    zarr: Annotated[
        bool, typer.Option("--spatialdata", help="A SpatialData .zarr too, as with --format h5ad,spatialdata.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Predict slides with a trained run: AnnData for scanpy and squidpy, and files for other tools."""
    gene_names = split_names("--genes", genes or None) or ()
    format_names = split_names("--format", f"{formats},spatialdata" if zarr else formats) or ()
    drawn = split_names("--draw", draw or None) or ()
    with importing():
        from train.predict.request import PredictConfig, accept

    config = PredictConfig(
        run, tuple(slide), store, out, gene_names, measured, format_names, drawn, above, overwrite, device
    )
    accepted = accept(config)
    with importing():
        from train.predict.slides import predict_slides

    if failed := predict_slides(config, accepted, tell=show_written):
        typer.echo(f"failed: {', '.join(failed)} (the reasons are above)", err=True)
        raise typer.Exit(1)


def show_written(written: "Written") -> None:
    """Say where a prediction is, and how to see it."""
    paths = ", ".join(map(str, written.paths))
    typer.echo(f"{written.slide_id}: {written.rows:,} rows of {written.um} µm × {written.genes} genes -> {paths}")
    if written.script:
        typer.echo(f"see it: python -c {shlex.quote(written.script)}")
