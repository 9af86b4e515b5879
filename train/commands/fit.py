"""The command `train fit`."""

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_core.console import importing, speak
from magnet_core.errors import MagnetError
from magnet_core.torchrun import started_together
from train.commands.options import (
    BackboneOption,
    Bins,
    DeviceOption,
    FoldOption,
    RecipeOption,
    RunsOption,
    SeedsOption,
    SetOption,
    StoreOption,
    TargetOption,
    run_options,
)
from train.commands.showing import show_table

if TYPE_CHECKING:
    from train.settings.fit import FitConfig


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
    seeds: SeedsOption = None,
    device: DeviceOption = None,
) -> None:
    """Train one fold and show MagNet beside the plain baselines on its test slides; given again, it goes on."""
    options = run_options(
        fold=fold, name=name, target=target, backbone=backbone, store=store, runs=runs, bins=bins, device=device,
        seeds=seeds,
    )  # fmt: skip
    options["overwrite"] = ("--overwrite", overwrite or None)
    options |= {ABLATIONS[block]: (f"--without {block}", False) for block in without or ()}
    if bins and any(setting.startswith("encoder.mode") for setting in set_ or ()):
        raise MagnetError("--bins", expected="--bins or encoder.mode", found="both", remedy="leave one of them out")
    with importing():
        from train.settings.fit import load_config

    config = load_config(recipe, set_ or (), options=options)
    if started_together():
        fit_together(config)
    else:
        fit_alone(config)


def fit_alone(config: "FitConfig") -> None:
    """Choose the fold, compute what is missing, and show the table."""
    with importing():
        from train.data.fold_choice import check_features, choose_fold, targets_of

    chosen = choose_fold(config)
    targets_of(config, [chosen], [config.data.target], (), option="--target")
    check_features(config, [chosen])
    with importing():
        from train.pipeline import fit

    show_table(fit(config, fold=chosen))


def fit_together(config: "FitConfig") -> None:
    """As `fit_alone`, in the first of several processes; the others follow it, and say nothing but faults."""
    if config.encoder.mode == "frozen":
        raise MagnetError(
            "torchrun",
            expected="--bins finetuned: the processes share the encoder's work",
            found="--bins frozen, without an encoder",
            remedy="leave torchrun out; train cv --jobs spreads folds",
        )
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch warns that no parameter is unused, which some are
    with importing():
        from magnet_core.ranks import together
        from train.pipeline import follow

    with together() as ranks:
        if ranks.is_first:
            fit_alone(config)
            ranks.agree(None)  # nothing is left to follow
        else:
            speak(quiet=True)
            follow()
