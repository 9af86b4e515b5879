"""The command `extract plan`."""

from typing import Annotated

import typer

from extract.config import load_run
from extract.options import (
    BackboneOption,
    BinsOption,
    OwnOption,
    PixelsOption,
    RecipeOption,
    SamplingOption,
    SetOption,
    SpotsOption,
    TargetsOption,
    TokensOption,
    ViewsOption,
    WorkersOption,
    split_targets,
)
from magnet_core.console import importing
from magnet_core.forecast.options import (
    DaysOption,
    GpuOption,
    GpusOption,
    PriceOption,
    RatesOption,
    SlidesOption,
    budget_of,
)

TissueOption = Annotated[float, typer.Option(min=0.01, max=1000, help="Tissue on a slide, in mm².")]
GenesOption = Annotated[int, typer.Option(min=1, max=1_000_000, help="Genes that are measured.")]
MoleculesOption = Annotated[float, typer.Option(min=0, help="Molecules a bin of 8 µm, on average.")]


def plan_command(
    *,
    slides: SlidesOption = None,
    tissue_mm2: TissueOption = 42.0,
    genes: GenesOption = 18_085,
    molecules: MoleculesOption = 200.0,
    gpu: GpuOption = "a100",
    gpus: GpusOption = None,
    days: DaysOption = None,
    price: PriceOption = None,
    rates: RatesOption = None,
    backbone: BackboneOption = None,
    tokens: TokensOption = None,
    own: OwnOption = None,
    views: ViewsOption = None,
    pixels: PixelsOption = None,
    targets: TargetsOption = None,
    sampling: SamplingOption = None,
    bins: BinsOption = None,
    spots: SpotsOption = None,
    workers: WorkersOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
) -> None:
    """Say what Visium HD slides would take that are not there yet: bytes, hours, GPUs, EUR; nothing is read or run."""
    budget = budget_of(slides, gpu, gpus, days, price, rates)
    options = {
        "embedding.backbone": ("--backbone", backbone),
        "embedding.token_grid": ("--tokens", tokens),
        "embedding.own": ("--own", own),
        "embedding.views": ("--views", views),
        "pixels": ("--pixels", pixels),
        "geometry.targets": ("--targets", split_targets(targets)),
        "geometry.sampling": ("--sampling", sampling),
        "geometry.bins": ("--bins", bins),
        "geometry.spots": ("--spots", spots),
        "workers": ("--workers", workers),
    }
    config = load_run(recipe, options, set_)
    with importing():
        from extract.forecast.slide import Tissue
        from extract.forecast.table import render_plan

    typer.echo(render_plan(config, Tissue(tissue_mm2, genes, molecules), budget))
