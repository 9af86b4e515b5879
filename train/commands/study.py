"""The command `train study`."""

from typing import Annotated

import typer

from magnet_core.console import importing
from magnet_core.engine.options import Spread, spread_by_options
from magnet_core.errors import MagnetError
from magnet_core.registry import look_up
from train.commands.options import (
    BackboneOption,
    DeviceOption,
    FinetuneOption,
    FoldsOption,
    GenesOption,
    NameOption,
    ProtocolOption,
    PublishedOption,
    RecipeOption,
    RunsOption,
    SeedsOption,
    SetOption,
    StoreOption,
    part_name,
    split_names,
    split_numbers,
)
from train.commands.showing import show_part, show_table
from train.studies.request import USUAL_BACKBONES, USUAL_TARGETS, Study, StudyRequest
from train.systems.table import SYSTEMS

ONLY_FOR = {"--systems": Study.BASELINES, "--backbones": Study.BACKBONES}


@spread_by_options
def study_command(
    *,
    study: Annotated[Study, typer.Argument(help="Table 1, 2, 3 or 4 of the paper.")],
    spread: Spread,
    targets: Annotated[str | None, typer.Option(help="Targets in µm, such as 8,16,55.")] = None,
    systems: Annotated[str | None, typer.Option(help=f"Systems: {', '.join(SYSTEMS)}; all by default.")] = None,
    backbones: Annotated[str | None, typer.Option(help="Backbones to compare: resnet50,uni by default.")] = None,
    folds: FoldsOption = None,
    store: StoreOption = None,
    runs: RunsOption = None,
    backbone: BackboneOption = None,
    name: NameOption = None,
    protocol: ProtocolOption = "paper",
    recipe: RecipeOption = None,
    set_: SetOption = None,
    finetune: FinetuneOption = False,
    genes: GenesOption = None,
    published: PublishedOption = False,
    seeds: SeedsOption = None,
    device: DeviceOption = None,
) -> None:
    """Make one of the paper's tables on your slides; what is computed already is not computed again."""
    given = {"--systems": systems, "--backbones": backbones}
    for option, only in ONLY_FOR.items():
        if given[option] is not None and study is not only:
            raise MagnetError(option, expected=f"it with 'train study {only}'", found=study, remedy="leave it out")
    request = StudyRequest(
        store, runs, backbone, device, recipe, tuple(set_ or ()), protocol,
        finetune=finetune,
        folds=split_numbers("--folds", folds),
        genes=split_names("--genes", genes) or (),
        seeds=seeds,
        published=published,
    )  # fmt: skip
    part = part_name(targets=targets, systems=systems, backbones=backbones, folds=folds)
    target_sizes, chosen = split_numbers("--targets", targets), split_names("--systems", systems)
    for each in chosen or ():
        look_up(dict.fromkeys(SYSTEMS), each, where="--systems")
    compared = split_names("--backbones", backbones)
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
    measured = targets_of(config.fit, sides, target_sizes, USUAL_TARGETS[study])
    if study is Study.BACKBONES:
        for each in compared or USUAL_BACKBONES:
            check_features(config.fit.changed(data={"backbone": each, "settings_digest": ""}), sides)
    else:
        check_features(config.fit, sides)
    check_included(config.fit, sides)
    check_gene_names(config.fit, sides, request.genes)
    with importing():
        from train.pipeline import make_part, make_table
        from train.studies.tables import plan_paper_table

    name = name or f"study-{study}{part}"
    plan = plan_paper_table(study, config, sides, targets=measured, systems=chosen, backbones=compared, name=name)
    if spread.shard is not None:
        show_part(spread.shard, make_part(plan, config, spread.shard, engine=spread.engine))
        return
    show_table(make_table(plan, config, published=request.published, genes=request.genes, engine=spread.engine))
