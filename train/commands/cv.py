"""The command `train cv`."""

from typing import Annotated

import typer

from magnet_core.console import importing
from magnet_core.engine.options import Spread, spread_by_options
from train.commands.options import (
    BackboneOption,
    Bins,
    DeviceOption,
    FoldsOption,
    GenesOption,
    NameOption,
    ProtocolOption,
    RecipeOption,
    RunsOption,
    SeedsOption,
    SetOption,
    StoreOption,
    TargetOption,
    part_name,
    split_names,
    split_numbers,
)
from train.commands.showing import show_part, show_table
from train.studies.request import StudyRequest


@spread_by_options
def cv_command(
    *,
    spread: Spread,
    target: TargetOption = None,
    backbone: BackboneOption = None,
    store: StoreOption = None,
    runs: RunsOption = None,
    name: NameOption = None,
    folds: FoldsOption = None,
    bins: Annotated[
        Bins | None,
        typer.Option(help="Fine-tune the bin encoder, or use its cached features.", show_default="finetuned"),
    ] = None,
    protocol: ProtocolOption = "paper",
    recipe: RecipeOption = None,
    set_: SetOption = None,
    genes: GenesOption = None,
    seeds: SeedsOption = None,
    device: DeviceOption = None,
) -> None:
    """Train and test MagNet on every fold, beside the plain baselines; a stopped command goes on where it was."""
    request = StudyRequest(
        store, runs, backbone, device, recipe, tuple(set_ or ()), protocol,
        finetune=None if bins is None else bins is Bins.FINETUNED,
        folds=split_numbers("--folds", folds),
        genes=split_names("--genes", genes) or (),
        seeds=seeds,
    )  # fmt: skip
    with importing():
        from train.data.fold_choice import (
            check_features,
            check_gene_names,
            check_included,
            choose_folds,
            targets_of,
        )
        from train.studies.configure import configure

    config = configure(request)
    sides = choose_folds(config.fit, request.folds)
    (um,) = targets_of(config.fit, sides, [target or config.fit.data.target], (), option="--target")
    check_features(config.fit, sides)
    check_included(config.fit, sides)
    check_gene_names(config.fit, sides, request.genes)
    with importing():
        from train.pipeline import make_part, make_table
        from train.studies.tables import plan_cross_validation

    plan = plan_cross_validation(config, sides, target=um, name=name, part=part_name(folds=folds))
    if spread.shard is not None:
        show_part(spread.shard, make_part(plan, config, spread.shard, engine=spread.engine))
    else:
        show_table(make_table(plan, config, genes=request.genes, engine=spread.engine))
