"""The command `train`: fit, cv, study, sweep, predict, report. Each command imports what takes long, when it runs."""

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
    run_options,
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


ABLATIONS = {  # the settings that are then false
    Ablation.GAT: "model.use_gat",
    Ablation.MULTIRES: "model.use_multires",
    Ablation.CONSISTENCY: "loss.consistency",
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
    options = run_options(
        fold=fold, name=name, target=target, backbone=backbone, store=store, runs=runs, bins=bins, device=device
    )
    options["overwrite"] = ("--overwrite", overwrite)
    options |= {ABLATIONS[block]: (f"--without {block}", False) for block in without or ()}
    if bins and any(setting.startswith("encoder.mode") for setting in set_ or ()):
        raise MagnetError("--bins", expected="--bins or encoder.mode", found="both", remedy="leave one of them out")
    with importing():
        from train.settings.fit import load_config
    config = load_config(recipe, set_ or (), options=options)
    with importing():
        from train.pipeline import fit

    show(fit(config))


COMMANDS: dict[str, Callable[..., None]] = {
    "cv": cv_command,
    "study": study_command,
    "sweep": sweep_command,
    "predict": predict_command,
    "report": report_command,
}
for name, command in COMMANDS.items():
    app.command(name=name)(command)
