"""The command `train plan`."""

from enum import StrEnum
from typing import Annotated

import typer

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
from train.commands.options import (
    BackboneOption,
    ProtocolOption,
    RecipeOption,
    SetOption,
    split_names,
    split_numbers,
)
from train.studies.request import USUAL_BACKBONES, USUAL_TARGETS, Study


class Planned(StrEnum):
    """What is to be made: one fold, all folds of MagNet, or one of the paper's tables."""

    FIT = "fit"
    CV = "cv"
    BASELINES = "baselines"
    BLOCKS = "blocks"
    LEVELS = "levels"
    BACKBONES = "backbones"


def plan_command(
    *,
    what: Annotated[Planned, typer.Argument(help="train fit, train cv, or a table of train study.")] = Planned.FIT,
    slides: SlidesOption = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Bins, or spots, a slide.", show_default="6000, 2500")] = None,
    targets: Annotated[str | None, typer.Option(help="Targets in µm, such as 8,16,55.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Times that all is trained, each with a seed of its own.")] = 1,
    backbone: BackboneOption = None,
    backbones: Annotated[str | None, typer.Option(help="Of 'backbones': resnet50,uni by default.")] = None,
    gpu: GpuOption = "a100",
    gpus: GpusOption = None,
    days: DaysOption = None,
    price: PriceOption = None,
    rates: RatesOption = None,
    protocol: ProtocolOption = "paper",
    recipe: RecipeOption = None,
    set_: SetOption = None,
) -> None:
    """Say what a table would take before there is a store: cells, hours, GPUs, EUR; nothing is read or run."""
    budget = budget_of(slides, gpu, gpus, days, price, rates)
    study = None if what in (Planned.FIT, Planned.CV) else Study(what)
    chosen, compared = split_numbers("--targets", targets), split_names("--backbones", backbones)
    with importing():
        from train.studies.forecast import Request, learners_of, render_plan
        from train.studies.settings import load_study_config

    options = {"data.backbone": ("--backbone", backbone)}
    config = load_study_config(recipe, set_ or (), options=options, protocol=protocol)
    learners, plain = learners_of(what, config.fit.data.backbone, compared or USUAL_BACKBONES)
    usual = USUAL_TARGETS[study] if study else (config.fit.data.target,)
    title = f"train study {study}" if study else f"train {what}"
    request = Request(title, learners, plain, chosen or usual, seeds, what is Planned.FIT, rows)
    typer.echo(render_plan(request, config, budget))
