"""The command `train predict`."""

import shlex
from typing import TYPE_CHECKING

import typer

from magnet_core.console import importing
from magnet_core.engine.options import Spread, spread_by_options
from train.commands.options import split_names
from train.commands.predict_options import (
    AboveOption,
    BatchSizeOption,
    DeviceOption,
    DrawOption,
    EnsembleOption,
    FormatOption,
    GenesOption,
    ImageOption,
    LikeOption,
    MeasuredOption,
    MppOption,
    OutOption,
    OverwriteOption,
    RunsArgument,
    SamplesOption,
    SlideOption,
    StoreOption,
    TissueOption,
    ViewsOption,
    WorkersOption,
    ZarrOption,
    check_place,
    check_source,
    check_views,
)

if TYPE_CHECKING:
    from train.predict.slides import Written


@spread_by_options
def predict_command(
    *,
    runs: RunsArgument,
    spread: Spread,
    slide: SlideOption = None,
    store: StoreOption = None,
    image: ImageOption = None,
    samples: SamplesOption = None,
    mpp: MppOption = "",
    tissue: TissueOption = None,
    like: LikeOption = None,
    batch_size: BatchSizeOption = 64,
    workers: WorkersOption = 2,
    ensemble: EnsembleOption = False,
    views: ViewsOption = 1,
    out: OutOption = None,
    formats: FormatOption = "h5ad",
    draw: DrawOption = None,
    above: AboveOption = "90%",
    genes: GenesOption = None,
    measured: MeasuredOption = False,
    zarr: ZarrOption = False,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Predict slides of a store, or images: AnnData for scanpy and squidpy, and files for other tools."""
    gene_names = split_names("--genes", genes) or ()
    format_names = split_names("--format", f"{formats},spatialdata" if zarr else formats) or ()
    check_source(slide or [], image or [], samples, mpp)
    check_place(image or [], tissue, like)
    check_views(views)
    drawn = split_names("--draw", draw) or ()
    with importing():
        from train.predict.request import PredictConfig, accept

    config = PredictConfig(
        runs=tuple(runs),
        slides=tuple(slide or ()),
        images=tuple(image or ()),
        samples=samples,
        mpp=mpp,
        tissue=tissue,
        like=like,
        ensemble=ensemble,
        views=8 if views == 8 else 1,
        store=store,
        out=out,
        genes=gene_names,
        measured=measured,
        formats=format_names,
        draw=drawn,
        above=above,
        overwrite=overwrite,
        device=device,
        batch_size=batch_size,
        workers=workers,
    )
    accepted = accept(config, spread.shard)
    with importing():
        from train.predict.slides import predict_slides

    if failed := predict_slides(config, accepted, engine=spread.engine, tell=show_written):
        typer.echo(f"failed: {', '.join(failed)} (the reasons are above)", err=True)
        raise typer.Exit(1)


def show_written(written: "Written") -> None:
    """Say where a prediction is, and how to see it."""
    paths = ", ".join(map(str, written.paths))
    typer.echo(f"{written.slide_id}: {written.rows:,} rows of {written.um} µm × {written.genes} genes -> {paths}")
    if written.agreement:
        typer.echo(f"{written.slide_id}: {written.agreement}")
    if written.script:
        typer.echo(f"see it, where squidpy is installed: python -c {shlex.quote(written.script)}")
