"""The command `train`: fit, cv, study, sweep, predict, report. Each command imports what takes long, when it runs."""

import json
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer

from magnet_core.console import importing
from magnet_core.errors import MagnetError
from train.commands.options import (
    BackboneOption,
    Bins,
    DeviceOption,
    FoldOption,
    RecipeOption,
    RunsOption,
    SetOption,
    StoreOption,
    TargetOption,
)
from train.commands.predict import predict_command
from train.commands.report import report_command
from train.commands.study import cv_command, show, study_command
from train.commands.sweep import sweep_command


class Ablation(StrEnum):
    """What the paper's ablations leave out."""

    GAT = "gat"
    MULTIRES = "multires"
    CONSISTENCY = "consistency"


ABLATIONS = {
    Ablation.GAT: "model.use_gat=false",
    Ablation.MULTIRES: "model.use_multires=false",
    Ablation.CONSISTENCY: "loss.consistency=false",
}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def train() -> None:
    """Stage two: train on a feature store, and compare."""


@app.command(name="fit")
def fit_command(
    fold: FoldOption = 0,
    target: TargetOption = None,
    backbone: BackboneOption = None,
    store: StoreOption = None,
    runs: RunsOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder.")] = None,
    bins: Annotated[Bins | None, typer.Option(help="Fine-tune the bin encoder, or use its cached features.")] = None,
    without: Annotated[list[Ablation] | None, typer.Option(help="Leave out a block, as the paper does.")] = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a finished run of the same name; an unfinished one goes on.")
    ] = False,
    device: DeviceOption = None,
) -> None:
    """Train one fold and print MagNet beside the plain baselines on its test slides."""
    named = {
        "fold": fold,
        "data.target": target,
        "data.backbone": backbone,
        "data.store": store,
        "runs": runs,
        "split.file": runs / "folds.json" if runs else None,
        "name": name,
        "overwrite": overwrite,
        "device": device,
        "encoder.mode": bins.mode if bins else None,
    }
    settings = [f"{key}={json.dumps(value, default=str)}" for key, value in named.items() if value is not None]
    if bins and any(setting.startswith("encoder.mode") for setting in set_ or ()):
        raise MagnetError("--bins", expected="--bins or encoder.mode", found="both", remedy="leave one of them out")
    settings += [ABLATIONS[block] for block in without or ()]
    with importing():
        from train.pipeline import fit
        from train.settings.fit import load_config

    show(fit(load_config(recipe, [*settings, *(set_ or ())])))


COMMANDS: dict[str, Callable[..., None]] = {
    "cv": cv_command,
    "study": study_command,
    "sweep": sweep_command,
    "predict": predict_command,
    "report": report_command,
}
for name, command in COMMANDS.items():
    app.command(name=name)(command)
