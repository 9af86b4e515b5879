"""The command `train fit`."""

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
from train.commands.showing import show_table


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


def fit_command(
    fold: FoldOption = None,
    target: TargetOption = None,
    backbone: BackboneOption = None,
    store: StoreOption = None,
    runs: RunsOption = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the table's folder.", show_default="BACKBONE-TARGETum-foldN")
    ] = None,
    bins: Annotated[
        Bins | None,
        typer.Option(help="Fine-tune the bin encoder, or use its cached features.", show_default="finetuned"),
    ] = None,
    without: Annotated[list[Ablation] | None, typer.Option(help="Leave out a block, as the paper does.")] = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a table of the same name and other settings; its cells stay.")
    ] = False,
    device: DeviceOption = None,
) -> None:
    """Train one fold and show MagNet beside the plain baselines on its test slides; given again, it goes on."""
    options = run_options(
        fold=fold, name=name, target=target, backbone=backbone, store=store, runs=runs, bins=bins, device=device
    )
    options["overwrite"] = ("--overwrite", overwrite or None)
    options |= {ABLATIONS[block]: (f"--without {block}", False) for block in without or ()}
    if bins and any(setting.startswith("encoder.mode") for setting in set_ or ()):
        raise MagnetError("--bins", expected="--bins or encoder.mode", found="both", remedy="leave one of them out")
    with importing():
        from train.data.fold_choice import check_features, choose_fold, targets_of
        from train.settings.fit import load_config

    config = load_config(recipe, set_ or (), options=options)
    chosen = choose_fold(config)
    targets_of(config, [chosen], [config.data.target], (), option="--target")
    check_features(config, [chosen])
    with importing():
        from train.pipeline import fit

    show_table(fit(config, fold=chosen))
